"""Every shipped configuration loads, says how it is run, and survives being written out."""

from pathlib import Path

import pytest
import yaml

from search.config import find_config, load_config

FOLDER = Path(__file__).parent.parent / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_all_are_there() -> None:
    assert len(FILES) > 0
    assert {file.stem for file in FILES} >= {"default", "hymenoptera", "elpv", "feature_extractor", "smoke"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEach:
    def test_loads_and_searches_something(self, file: Path) -> None:
        assert load_config(file).parameters().sampled

    def test_opens_with_its_command_and_what_it_takes(self, file: Path) -> None:
        lines = file.read_text(encoding="utf-8").splitlines()
        opening = lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))]
        assert f"python -m search.run --space {file.name}" in "\n".join(opening)
        assert "# Takes " in "\n".join(opening) and "measured on 2 CPU cores" in "\n".join(opening)

    def test_is_found_by_name_from_anywhere(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert find_config(file.name).samefile(file)

    def test_is_equal_after_being_written_out(self, file: Path, tmp_path: Path) -> None:
        config = load_config(file)
        written = tmp_path / "config.yaml"
        written.write_text(yaml.safe_dump(config.resolved(), sort_keys=False), encoding="utf-8")
        assert load_config(written) == config
        assert load_config(written).resolved() == config.resolved()
