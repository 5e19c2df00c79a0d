"""The build, as far as pyproject.toml cannot say it: the data of the wheel, and the module that is compiled."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = (
    "prices.json",
    "models.json",
    "types.json",
    "questions.jsonl",
    "requests/*.jsonl",
    "policy/*",
)  # what programs read


class BuildWithData(build_py):
    """Puts what the programs read of `data/` into the package, where `router.policy.distribution` looks for it."""

    def run(self) -> None:
        """Build the packages, then copy; an editable install builds nothing and finds `data/` itself."""
        super().run()
        if self.editable_mode:
            return
        for pattern in SHIPPED:
            paths = sorted((ROOT / "data").glob(pattern))
            if not paths:
                raise FileNotFoundError(f"data/{pattern}: nothing to put into the wheel")
            for path in paths:
                target = Path(self.build_lib) / "router" / "_data" / path.relative_to(ROOT / "data")
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(target))


KERNELS = cythonize(
    [Extension("router.policy.prediction_kernel", ["router/policy/prediction_kernel.pyx"])], build_dir="build/cython"
)
for kernel in KERNELS:  # `cythonize` forgets the argument
    kernel.optional = True  # without a C compiler the build goes on, and NumPy computes the predictions

setup(cmdclass={"build_py": BuildWithData}, ext_modules=KERNELS)
