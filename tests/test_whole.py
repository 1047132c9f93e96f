"""A file is whole or not there."""

import pytest

from trainable.whole import written_whole


def test_a_file_is_there_when_all_of_it_is(tmp_path) -> None:
    with written_whole(tmp_path / "file") as draft:
        draft.write_text("new")
        assert not (tmp_path / "file").exists()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "new")]


def test_where_writing_fails_the_old_file_stays_and_no_draft(tmp_path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "file") as draft:
        draft.write_text("ne")
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]
