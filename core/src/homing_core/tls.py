"""TLS from files: which certificates are shown and which are trusted. Errors name setting and file."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


class TlsError(ValueError):
    """A file for TLS cannot be used; the message names the setting and the file, never what is in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """The files of one end of connections."""

    prefix: str
    """What the names of their settings begin with, as `HOMING_TLS`."""
    cert: Path | None = None
    """The own certificate, with those between it and its authority."""
    key: Path | None = None
    """The key of the own certificate."""
    ca: Path | None = None
    """The certificates to trust."""
    ca_setting: str = "CA"
    """What the name of the setting of these ends with."""

    def server_context(self) -> ssl.SSLContext:
        """Return what a server needs. Where it trusts certificates, clients must show one that these vouch for.

        :raises TlsError: A file is missing, or cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is None or self.key is None:
            self._incomplete()
        self._show(context, self.cert, self.key)
        if self.ca is not None:
            self._trust(context, self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what a client needs, which checks certificates and host names: by those of the system by default.

        :raises TlsError: A file is missing, or cannot be used.
        """
        if self.ca is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._trust(context, self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None and self.key is not None:
            self._show(context, self.cert, self.key)
        elif self.cert is not None or self.key is not None:
            self._incomplete()
        return context

    def _incomplete(self) -> NoReturn:
        given, missing = ("CERT", "KEY") if self.cert is not None else ("KEY", "CERT")
        if self.cert is None and self.key is None:
            given = self.ca_setting
            missing = f"CERT and {self.prefix}_KEY"
        raise TlsError(f"{self.prefix}_{given} is set without {self.prefix}_{missing}")

    def _trust(self, context: ssl.SSLContext, ca: Path) -> None:
        text = self._read(ca, self.ca_setting)
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise self._error(self.ca_setting, ca, f"has no certificates in PEM form ({_told(error)})") from None

    def _show(self, context: ssl.SSLContext, cert: Path, key: Path) -> None:
        text = self._read(cert, "CERT")
        try:
            ssl.PEM_cert_to_DER_cert(text[text.find(ssl.PEM_HEADER) :].partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER)
        except ValueError:
            raise self._error("CERT", cert, "has no certificate in PEM form") from None
        self._read(key, "KEY")
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise self._error("KEY", key, f"is not the key of the certificate in {cert} ({_told(error)})") from None

    def _read(self, path: Path, setting: str) -> str:
        try:
            return path.read_text(encoding="ascii")
        except OSError as error:
            raise self._error(setting, path, f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise self._error(setting, path, "is not in PEM form") from None

    def _error(self, setting: str, path: Path, why: str) -> TlsError:
        return TlsError(f"{self.prefix}_{setting}: {path} {why}")


def _no_password() -> NoReturn:
    # Without this OpenSSL would ask at the terminal.
    raise ValueError("it is encrypted")


def _told(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else str(error)
