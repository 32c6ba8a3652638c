"""How long things last that an authority gives out."""

from __future__ import annotations

import msgspec

from skerry.spec.units import Duration


class AuthorityOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How long things last, with the reason of each.

    Parameters
    ----------
    certificate_life:
        24 h: whoever copies a key and is noticed, is out after a day even where nobody hears of the revocation.
    hub_certificate_life:
        90 days: the hub renews it by itself; devices with a clock that is some weeks off still believe it.
    backdate:
        1 h: a certificate counts from before it was made, for clocks that are behind.
    longest_token_life:
        30 days: a string that lets somebody in should not lie about for longer.
    operator_life, longest_operator_life:
        30 days, at most 366: people carry their certificate by hand into a browser, and do not do that every day.
    nonce_life:
        5 min: a slow link and a slow chip need seconds.
    an_hour:
        60 certificates by renewal within an hour: a device needs two a day, and each costs the hub's disk some writes.
    memory:
        90 days that ended certificates and old keys are remembered, so that batches carried by a relay can be checked.
    """

    certificate_life: Duration = Duration(24 * 3600.0)
    hub_certificate_life: Duration = Duration(90 * 86400.0)
    backdate: Duration = Duration(3600.0)
    longest_token_life: Duration = Duration(30 * 86400.0)
    operator_life: Duration = Duration(30 * 86400.0)
    longest_operator_life: Duration = Duration(366 * 86400.0)
    nonce_life: Duration = Duration(300.0)
    an_hour: int = 60
    memory: Duration = Duration(90 * 86400.0)
