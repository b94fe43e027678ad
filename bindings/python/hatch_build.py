"""Puts what lies elsewhere in the repository into the package."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ELSEWHERE = {
    "../../gate-wasm/gate.wasm": "autonomy_gate/gate.wasm",
    "../../LICENSE-APACHE": "LICENSE-APACHE",
    "../../LICENSE-MIT": "LICENSE-MIT",
}


class Elsewhere(BuildHookInterface[Any]):
    """A source distribution gets the files beside the package; a wheel of the repository gets the module alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Adds the files, which a source distribution has already."""
        for source, place in ELSEWHERE.items():
            path = Path(self.root, source)
            if not path.exists():
                continue
            if self.target_name == "sdist":
                build_data["force_include"][str(path)] = f"src/{place}" if "/" in place else place
            elif place.endswith(".wasm"):
                build_data["force_include"][str(path)] = place
