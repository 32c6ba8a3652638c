"""Faults: why an exchange failed, in words that tell what to look at."""

from __future__ import annotations

import errno
import socket
import ssl

from skerry.run.uplink.transport import Answer

_BY_NUMBER = {
    errno.ECONNREFUSED: "nobody listens there: is the hub running, and the port right?",
    errno.ENETUNREACH: "there is no way to that network: the link is down",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ECONNRESET: "the other end cut the connection",
    errno.EPIPE: "the other end cut the connection",
    errno.ETIMEDOUT: "the connection went silent",
}
_BY_ALERT = {
    "CERTIFICATE_EXPIRED": "the hub says that our certificate has expired: is this clock right? It is renewed",
    "CERTIFICATE_REVOKED": "the hub says that our certificate is revoked",
    "UNKNOWN_CA": "the hub does not know who signed our certificate: enrol this device with it (skerry enroll)",
    "BAD_CERTIFICATE": "the hub does not take our certificate",
    "CERTIFICATE_REQUIRED": "the hub wants a certificate, and we have none: enrol this device (skerry enroll)",
    "WRONG_VERSION_NUMBER": "what answers does not speak TLS: a captive portal, or http where https was meant?",
    "HTTP_REQUEST": "what answers speaks plain HTTP, not TLS",
    "UNSUPPORTED_PROTOCOL": "what answers does not speak TLS 1.3: it is no hub",
    "TLSV1_ALERT_PROTOCOL_VERSION": "what answers does not speak TLS 1.3: it is no hub",
    "UNEXPECTED_EOF_WHILE_READING": "the connection ended while TLS was spoken",
}
_BY_STATUS = {
    401: "the hub does not know this device: enrol it (skerry enroll)",
    403: "the hub refuses this device; where renewing does not help, `skerry enroll --again TOKEN` does",
    404: "the hub has no place for batches: is the address right?",
    426: "the hub reads another version of the wire format: update the older side",
}
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL
_HOST_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def told_plainly(error: BaseException, place: str) -> str:
    """Return in plain words why ``place`` could not be reached.

    >>> told_plainly(ConnectionRefusedError(111, "Connection refused"), "https://hub:8443")
    'https://hub:8443: nobody listens there: is the hub running, and the port right?'
    """
    return f"{place}: {_reason(error)}"


def _reason(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror}): no network, or no DNS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _about_their_certificate(error)
    if isinstance(error, ssl.SSLError):
        return _about_tls(error)
    if isinstance(error, TimeoutError):
        return _BY_NUMBER[errno.ETIMEDOUT] if error.errno else "no answer in time"
    known = _BY_NUMBER.get(getattr(error, "errno", None) or 0)
    return known or str(error) or type(error).__name__


def _about_tls(error: ssl.SSLError) -> str:
    reason = (error.reason or "").upper()
    return next((words for mark, words in _BY_ALERT.items() if mark in reason), f"TLS failed: {error.reason or error}")


def _about_their_certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in {_NOT_YET_VALID, _EXPIRED}:
        return f"the hub's certificate is not valid now ({error.verify_message}): is this clock right?"
    if error.verify_code in _HOST_MISMATCH:
        return f"the certificate is not for this name ({error.verify_message}): is the address right?"
    return f"whoever answers is not our hub ({error.verify_message}): a captive portal, or a forged certificate"


def refusal_told(answer: Answer) -> str:
    """Return in plain words why a hub did not take us."""
    said = answer.excerpt()
    words = _BY_STATUS.get(answer.status, f"the hub answered {answer.status}")
    return f"{words} ({said})" if said else words


def impostor_told(answer: Answer, what: str = "") -> str:
    """Return in plain words what was answered by something that is no hub."""
    content = what or answer.excerpt()[:60]
    kind = answer.kind or "no kind of content"
    return (
        f"something that is no hub answers {answer.status} with {kind} ({content!r}):"
        " a captive portal? Nothing counts as sent"
    )


def unbelieved_told(fault: str) -> str:
    """Return in plain words that a receipt does not fit the batch that it answers."""
    return f"the hub's receipt is not believed: {fault}. Everything unsent is kept here"


def mismatch_told(fault: str) -> str:
    """Return in plain words that the hub's books are not ours, and what to do about it."""
    return (
        f"{unbelieved_told(fault)}. Ask whoever runs the hub. If it was restored from a backup: write `mismatch: tell`"
        " at this sink, let it send, and take it out again; what the hub had acknowledged and lost was forgotten here,"
        " and cannot be sent again. If not: it loses records, and should not be believed"
    )


def mismatch_taken_told(fault: str) -> str:
    """Return in plain words that the hub's books are not ours, and that this is lived with."""
    return (
        f"the hub's books do not agree with ours: {fault}. What it lost cannot be sent again; the rest is sent, and"
        " new books are begun. Take `mismatch: tell` out again: with it, nothing is protected from a hub that loses"
    )
