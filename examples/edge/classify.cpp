// Names the class of a picture, through onnxruntime's C++ API and nothing else.
//
// For files exported with preprocessing="uint8", which resize and scale the picture themselves:
//
//   classify model_task1.onnx photo.ppm              a binary PPM (P6), 8 bits a channel
//   classify model_task1.onnx photo.rgb 640 480      raw bytes RGBRGB..., width and height
//
// A camera gives such bytes as they are; `convert photo.jpg photo.ppm` makes a PPM.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Picture {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> pixels;  // height x width x 3, RGB
};

// A number of a PPM's header. Comments run from # to the end of the line.
int64_t ppm_number(std::istream& file) {
  int64_t number = 0;
  while ((file >> std::ws) && file.peek() == '#') {
    std::string comment;
    std::getline(file, comment);
  }
  file >> number;
  return number;
}

// Reads a P6 file; with a width and a height, raw bytes.
Picture read_picture(const std::string& path, int64_t width, int64_t height) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("there is no picture '" + path + "'");
  Picture picture{height, width, {}};
  if (width == 0) {
    char magic[2] = {0, 0};
    file.read(magic, 2);
    picture.width = ppm_number(file);
    picture.height = ppm_number(file);
    const int64_t highest = ppm_number(file);
    file.get();  // one white space ends the header
    if (magic[0] != 'P' || magic[1] != '6' || !file || highest != 255) {
      throw std::runtime_error("'" + path + "' is not a binary PPM (P6) of 8 bits a channel; "
                               "for raw RGB bytes add the width and the height");
    }
  }
  picture.pixels.assign(std::istreambuf_iterator<char>(file), {});
  const auto expected = picture.height * picture.width * 3;
  if (picture.height <= 0 || picture.width <= 0 ||
      static_cast<int64_t>(picture.pixels.size()) != expected) {
    throw std::runtime_error("'" + path + "' has " + std::to_string(picture.pixels.size()) +
                             " bytes of pixels, expected height x width x 3 = " +
                             std::to_string(expected));
  }
  return picture;
}

void append_utf8(std::string& text, uint32_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
    return;
  }
  const int further = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t first = further == 1 ? 0xC0 : further == 2 ? 0xE0 : 0xF0;
  text += static_cast<char>(first | (code >> (6 * further)));
  for (int place = further - 1; place >= 0; --place) {
    text += static_cast<char>(0x80 | ((code >> (6 * place)) & 0x3F));
  }
}

// The strings of a JSON list of strings, which is how class names are kept.
std::vector<std::string> json_strings(const std::string& json) {
  std::vector<std::string> strings;
  for (size_t at = json.find('"'); at < json.size(); at = json.find('"', at)) {
    std::string text;
    for (++at; json.at(at) != '"'; ++at) {
      if (json[at] != '\\') {
        text += json[at];
        continue;
      }
      const char escaped = json.at(++at);
      if (escaped == 'u') {
        uint32_t code = std::stoul(json.substr(at + 1, 4), nullptr, 16);
        at += 4;
        if (code >= 0xD800 && code < 0xDC00) {  // the first half of a pair: \ud83c\udf3b
          code = 0x10000 + ((code - 0xD800) << 10) +
                 (std::stoul(json.substr(at + 3, 4), nullptr, 16) - 0xDC00);
          at += 6;
        }
        append_utf8(text, code);
      } else {
        const std::string from = "nrtbf", to = "\n\r\t\b\f";
        const size_t place = from.find(escaped);
        text += place == std::string::npos ? escaped : to[place];
      }
    }
    strings.push_back(text);
    ++at;
  }
  return strings;
}

struct Answer {
  size_t best;
  double chance;
};

Answer classify(Ort::Session& session, Picture& picture, bool bgr) {
  if (bgr) {
    for (size_t at = 0; at < picture.pixels.size(); at += 3) {
      std::swap(picture.pixels[at], picture.pixels[at + 2]);
    }
  }
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<std::string> names;
  for (size_t place = 0; place < session.GetOutputCount(); ++place) {
    names.emplace_back(session.GetOutputNameAllocated(place, allocator).get());
  }
  const bool top = names.size() == 2;  // top_classes and top_probabilities
  std::vector<const char*> wanted;
  if (top) {
    wanted = {"top_classes", "top_probabilities"};
  } else {
    wanted = {names.at(0).c_str()};  // logits, or probabilities
  }

  const std::array<int64_t, 4> shape{1, picture.height, picture.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto image = Ort::Value::CreateTensor<uint8_t>(memory, picture.pixels.data(),
                                                 picture.pixels.size(), shape.data(), shape.size());
  const char* input = "image";
  auto outputs =
      session.Run(Ort::RunOptions{nullptr}, &input, &image, 1, wanted.data(), wanted.size());

  if (top) {
    return {static_cast<size_t>(outputs[0].GetTensorData<int64_t>()[0]),
            outputs[1].GetTensorData<float>()[0]};
  }
  const float* values = outputs[0].GetTensorData<float>();
  const size_t count = outputs[0].GetTensorTypeAndShapeInfo().GetElementCount();
  const size_t best = std::max_element(values, values + count) - values;
  if (names[0] == "probabilities") return {best, values[best]};
  double sum = 0;  // the softmax of the largest of the logits
  for (size_t place = 0; place < count; ++place) sum += std::exp(values[place] - values[best]);
  return {best, 1 / sum};
}

int64_t side(const std::string& text) {
  char* end = nullptr;
  const long long number = std::strtoll(text.c_str(), &end, 10);
  if (*end != '\0' || number <= 0) {
    throw std::runtime_error("a width and a height are whole numbers from 1; got '" + text + "'");
  }
  return number;
}

int main(int count, char** arguments) try {
  if (count != 3 && count != 5) {
    std::fprintf(stderr, "classify MODEL.onnx PICTURE.ppm | PICTURE.rgb WIDTH HEIGHT\n");
    return 2;
  }
  const bool raw = count == 5;
  Picture picture = raw ? read_picture(arguments[2], side(arguments[3]), side(arguments[4]))
                        : read_picture(arguments[2], 0, 0);

  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "classify");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);  // raise it where cores are idle
  const std::filesystem::path model(arguments[1]);
  Ort::Session session(env, model.c_str(), options);

  Ort::AllocatorWithDefaultOptions allocator;
  const auto metadata = session.GetModelMetadata();
  const auto fact = [&](const char* key) {
    const auto found = metadata.LookupCustomMetadataMapAllocated(key, allocator);
    return found ? std::string(found.get()) : std::string();
  };
  const auto classes = json_strings(fact("classes"));
  const Answer answer = classify(session, picture, fact("channel_order") == "bgr");
  const std::string name = answer.best < classes.size() ? classes[answer.best]
                                                        : "class " + std::to_string(answer.best);
  std::printf("%s %.1f%%\n", name.c_str(), 100 * answer.chance);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "classify: %s\n", error.what());
  return 1;
}
