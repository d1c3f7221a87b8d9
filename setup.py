"""Packaging: all metadata is here, because the folders do not lie where Python imports them from.

`export/` is imported as `packnet_tf.export` and `apps/` as `packnet_tf.apps`. `pyproject.toml`
names the build system and configures the tools, nothing else.
"""

import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).parent
FOLDERS = {"packnet_tf": "packnet_tf", "packnet_tf.export": "export", "packnet_tf.apps": "apps"}

# onnxruntime-gpu also runs on machines without a GPU. Its wheels for aarch64, recent and large, are
# for the few boards with CUDA, so devices get onnxruntime.
GPU_PLATFORM = (
    "(sys_platform == 'linux' and platform_machine == 'x86_64')"
    " or (sys_platform == 'win32' and platform_machine == 'AMD64')"
)
OTHER_PLATFORM = (
    "(sys_platform != 'linux' or platform_machine != 'x86_64')"
    " and (sys_platform != 'win32' or platform_machine != 'AMD64')"
)

# The lower bounds are versions that the tests pass with; the gate tests them together, from what
# `.ci/lowest` prints. Few versions below them were tried. An upper bound is where the library reads
# what is private: Keras's attributes (`packnet_tf/backend/keras_internals.py`), and the graph of
# tf2onnx (`export/convert/`).
REQUIRES = [
    "absl-py>=1.4",
    "h5py>=3.11",
    "keras>=3.15,<3.16",
    "numpy>=2.0",
    "onnx>=1.17",
    f"onnxruntime-gpu>=1.19.2; {GPU_PLATFORM}",
    f"onnxruntime>=1.19.2; {OTHER_PLATFORM}",
    "rich>=14",
    "tensorflow>=2.21",
    "tensorflow-model-optimization>=0.8.1",
    "tf2onnx>=1.17,<1.18",
]
APPS = [
    "jinja2>=3.1",
    "matplotlib>=3.10",
    "pillow>=11.3",
    "pyyaml>=6.0.1",
    "scikit-learn>=1.4.2",
    "tensorboard>=2.20",  # the trainer writes for it where it is installed
]
DOCS = [
    "mkdocs>=1.6.1,<2",  # mkdocs-material is for mkdocs 1
    "mkdocs-material>=9.8,<10",
    "mkdocstrings[python]>=1.0.8,<2",
]
SLURM = ["submitit>=1.5.2"]  # hands the runs of `packnet compare` to a cluster
TESTS = [
    *APPS,
    *SLURM,
    "build>=1.2",
    "hypothesis>=6.170,<7",
    "ipykernel>=7.4,<8",  # for the notebooks
    "jax>=0.10.2,<0.11",  # the core also runs on Keras's JAX backend
    "keras-hub>=0.32,<0.33",  # its backbones are trunks
    "mypy>=2.4,<2.5",  # another minor version may find other faults
    "nbclient>=0.11,<0.12",  # runs the notebooks
    "nbformat>=5.11,<6",
    "pytest>=9.2,<10",
    "pytest-xdist>=3.8,<4",
    "scipy>=1.11",  # reads SVHN, in examples/streams
    "ruff>=0.17.6,<0.18",  # another minor version may format differently
    "sympy>=1.14,<2",  # onnxruntime's symbolic shape inference, which exported files must pass
    "twine>=6.1",
]


def version() -> str:
    """Reads `__version__` as text: importing the package would need its dependencies."""
    text = (HERE / "packnet_tf" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('packnet_tf/__init__.py has no line like: __version__ = "0.2.0"')
    return found.group(1)


def readme() -> str:
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def packages() -> list[str]:
    """Import names of all folders with modules in them."""
    return sorted(
        {
            ".".join([name, *path.parent.relative_to(HERE / folder).parts])
            for name, folder in FOLDERS.items()
            for path in (HERE / folder).rglob("*.py")
        }
    )


setup(
    name="packnet_tf",
    version=version(),
    description="PackNet for Keras 3: many tasks in one network, one ONNX file per task.",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="The packnet_tf authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=packages(),
    package_dir=FOLDERS,
    package_data={
        "packnet_tf": ["py.typed"],
        "packnet_tf.apps": ["pages/templates/*.html", "research/recipes/**/*.yaml"],
    },
    zip_safe=False,
    install_requires=REQUIRES,
    extras_require={"apps": APPS, "docs": DOCS, "slurm": SLURM, "tests": TESTS},
    entry_points={"console_scripts": ["packnet = packnet_tf.apps.main:main"]},
)
