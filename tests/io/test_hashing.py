"""Files are hashed as the standard does it."""

from __future__ import annotations

from pathlib import Path

from unnoise.io.hashing import sha256


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    """FIPS 180-2, appendix B.1."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
