"""A certificate authority of our own, and what it signs: for servers that speak TLS, and for clients that have to show one."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


def _key() -> rsa.RSAPrivateKey:
    """RSA, as Pulsar reads no other kind from a PEM file."""
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Certificate:
    """Files in PEM: the certificate, its key (PKCS 8, without a password), and both in one."""
    cert: Path
    key: Path
    both: Path


class Authority:
    """Signs for 127.0.0.1 and localhost. Two of them do not trust each other."""

    def __init__(self, folder: Path, name: str = "testbed"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = _key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        key_usage = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
                                  data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False)
        certificate = (self._builder(self._name, self._key)
                       .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                       .add_extension(key_usage, critical=True)
                       .sign(self._key, hashes.SHA256()))
        self.cert = folder / f"{name}-ca.pem"
        self.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + 30 * _DAY))

    def issue(self, name: str, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")) -> Certificate:
        """A certificate for a server or a client."""
        key = _key()
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        certificate = (self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
                       .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                       .add_extension(x509.SubjectAlternativeName(names), critical=False)
                       .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
                       .sign(self._key, hashes.SHA256()))
        cert_text = certificate.public_bytes(serialization.Encoding.PEM)
        key_text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        out = Certificate(*(self.folder / f"{name}{suffix}.pem" for suffix in ("", "-key", "-both")))
        out.cert.write_bytes(cert_text)
        out.key.write_bytes(key_text)
        out.both.write_bytes(key_text + cert_text)
        return out
