"""Detached signatures of bundles: who vouches for the manifest, and with it for every file's hash.

Signatures are OpenSSH's (`ssh-keygen -Y sign`, Ed25519): most machines have the tool, and people
have keys. Their namespace keeps a signature made for something else, such as a commit, from
counting for a bundle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compilers.errors import BundleError

NAMESPACE = "netcarve-bundle"
_TOOL = "ssh-keygen"
_SIGNER = "signer"
_PUBLIC_KEY = re.compile(r"(ssh-ed25519 [A-Za-z0-9+/]+={0,2})( [^\r\n]*)?\n?")
_LONGEST_KEY = 10_000
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Signature:
    """A detached signature, and whose it must be.

    Attributes:
        file: What `ssh-keygen -Y sign -n netcarve-bundle manifest.json` wrote.
        key: The signer's Ed25519 public key, one line as in `id_ed25519.pub`.
    """

    file: Path
    key: Path

    def check(self, signed: Path) -> None:
        """Make sure that the key's owner signed the content of a file.

        Raises:
            BundleError: They did not; or a file cannot be read, the key is no Ed25519 public key,
                or OpenSSH is missing.
        """
        tool = shutil.which(_TOOL)
        if tool is None:
            raise BundleError(f"there is no {_TOOL}, which checks signatures; install OpenSSH")
        key = self._public_key()
        try:
            content = signed.read_bytes()
            self.file.open("rb").close()
        except OSError as error:
            raise BundleError(f"{error.filename}: cannot be read: {error.strerror}") from error
        with tempfile.TemporaryDirectory(prefix="netcarve-signature-") as folder:
            allowed = Path(folder) / "allowed_signers"
            allowed.write_text(f'{_SIGNER} namespaces="{NAMESPACE}" {key}\n')
            command = [tool, "-Y", "verify", "-f", str(allowed), "-I", _SIGNER, "-n", NAMESPACE]
            command += ["-s", str(self.file.resolve())]
            try:
                done = subprocess.run(
                    command, input=content, capture_output=True, check=False, timeout=_TIMEOUT
                )
            except subprocess.TimeoutExpired as error:
                raise BundleError(f"{_TOOL} took longer than {_TIMEOUT:g} s") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            reason = f" ({said[0][:300]})" if said else ""
            raise BundleError(
                f"{self.file}: no signature of {signed} by the owner of {self.key}{reason}"
            )

    def _public_key(self) -> str:
        """Type and key alone: nothing else of the file may reach the list of allowed signers."""
        try:
            with self.key.open("rb") as file:
                text = file.read(_LONGEST_KEY).decode()
        except OSError as error:
            raise BundleError(f"{self.key}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            text = ""
        found = _PUBLIC_KEY.fullmatch(text)
        if found is None:
            raise BundleError(
                f"{self.key}: not a public key; allowed: one line 'ssh-ed25519 KEY COMMENT', as in "
                "id_ed25519.pub"
            )
        return found[1]
