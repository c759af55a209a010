from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from compilers.errors import BundleError
from compilers.signature import NAMESPACE, Signature

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


def make_key(path, kind="ed25519"):
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "someone", "-f", path]
    subprocess.run(command, check=True)
    return path


def sign(path, key, namespace=NAMESPACE):
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace, path]
    subprocess.run(command, check=True, capture_output=True)
    return Path(f"{path}.sig")


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path / "mine")


@pytest.fixture
def signed(tmp_path, key):
    """A file with its signature beside it."""
    path = tmp_path / "manifest.json"
    path.write_text('{"format": 1}')
    sign(path, key)
    return path


def signature(signed, key):
    return Signature(Path(f"{signed}.sig"), Path(f"{key}.pub"))


def test_the_owner_s_signature_of_that_content_is_good(signed, key):
    signature(signed, key).check(signed)


def test_another_content_another_signer_and_another_purpose_are_refused(signed, key, tmp_path):
    with pytest.raises(BundleError, match=r"no signature of .*manifest\.json by the owner of"):
        signature(signed, make_key(tmp_path / "theirs")).check(signed)
    signed.write_text('{"format": 2}')
    with pytest.raises(BundleError, match="no signature of"):
        signature(signed, key).check(signed)
    Path(f"{signed}.sig").unlink()
    sign(signed, key, "git")
    with pytest.raises(BundleError, match="no signature of"):
        signature(signed, key).check(signed)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "ssh-rsa AAAA someone", "ssh-ed25519", "cert-authority {key}", "{key}\n{key}",
     "* {key}"],
)  # fmt: skip
def test_what_is_no_public_key_is_refused(signed, key, text):
    public = Path(f"{key}.pub")
    public.write_text(text.replace("{key}", public.read_text().strip()))
    with pytest.raises(BundleError, match=r"mine\.pub: not a public key; allowed: one line"):
        signature(signed, key).check(signed)


def test_a_private_key_is_not_taken_for_the_public_one(signed, key):
    with pytest.raises(BundleError, match="mine: not a public key"):
        Signature(Path(f"{signed}.sig"), key).check(signed)


def test_a_comment_cannot_name_another_signer(signed, key, tmp_path):
    """Only type and key of the file are used."""
    other = make_key(tmp_path / "theirs")
    public = Path(f"{other}.pub")
    public.write_text(f"{public.read_text().strip()} {Path(f'{key}.pub').read_text().strip()}\n")
    with pytest.raises(BundleError, match="no signature of"):
        signature(signed, other).check(signed)


def test_files_that_are_missing_or_no_signature(signed, key, tmp_path):
    with pytest.raises(BundleError, match=r"none\.sig: cannot be read"):
        Signature(tmp_path / "none.sig", Path(f"{key}.pub")).check(signed)
    with pytest.raises(BundleError, match=r"none\.pub: cannot be read"):
        Signature(Path(f"{signed}.sig"), tmp_path / "none.pub").check(signed)
    with pytest.raises(BundleError, match=r"none\.json: cannot be read"):
        signature(signed, key).check(tmp_path / "none.json")
    with pytest.raises(BundleError, match="no signature of"):
        Signature(signed, Path(f"{key}.pub")).check(signed)


def test_without_openssh_it_says_so(signed, key, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BundleError, match=r"there is no ssh-keygen.*install OpenSSH"):
        signature(signed, key).check(signed)
