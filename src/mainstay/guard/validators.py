"""Check digits: Luhn, IBAN and national numbers. Each takes the number as written and says whether it can be real."""

from __future__ import annotations

from datetime import date

_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24,
    "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21,
    "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27,
    "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24,
    "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22,
    "VG": 24, "XK": 20,
}  # fmt: skip
"""Length of an IBAN by country; SWIFT IBAN registry."""


def digits_of(text: str) -> str:
    return "".join(c for c in text if c in "0123456789")


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1 Annex B."""
    total = 0
    for index, digit in enumerate(reversed(digits_of(text))):
        value = int(digit) * (1 + index % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def card(text: str) -> bool:
    """A payment card number: an issuer's first digits, 12 to 19 digits, Luhn, not one digit over and over."""
    digits = digits_of(text)
    if not 12 <= len(digits) <= 19 or len(set(digits)) < 2 or digits[0] not in "123456":
        return False
    if digits[0] == "1" and not digits.startswith(("1800",)):
        return False
    return luhn(digits)


def iban(text: str) -> bool:
    """ISO 13616: country, length, remainder 1 modulo 97."""
    compact = "".join(text.split()).upper()
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact) or not compact.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def us_ssn(text: str) -> bool:
    """Area, group and serial that the Social Security Administration can assign (not 000, 666, 9xx)."""
    digits = digits_of(text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def spanish_dni(text: str) -> bool:
    """DNI and NIE: the letter is the number modulo 23."""
    compact = text.replace("-", "").replace(" ", "").upper()
    number = {"X": "0", "Y": "1", "Z": "2"}.get(compact[0], compact[0]) + compact[1:-1]
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == compact[-1]


def italian_codice_fiscale(text: str) -> bool:
    """Sixteen characters, the last of which checks the others (decree of 23 December 1976)."""
    odd = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23]
    values = [int(c) if c.isdigit() else ord(c) - 65 for c in text.upper()]
    total = sum(odd[v] if index % 2 == 0 else v for index, v in enumerate(values[:15]))
    return total % 26 == values[15]


def brazilian_cpf(text: str) -> bool:
    digits = [int(d) for d in digits_of(text)]
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(d * (length + 1 - i) for i, d in enumerate(digits[:length]))
        if total * 10 % 11 % 10 != digits[length]:
            return False
    return True


def polish_pesel(text: str) -> bool:
    digits = [int(d) for d in digits_of(text)]
    if len(digits) != 11 or not _pesel_date(digits):
        return False
    return sum(w * d for w, d in zip((1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), digits, strict=True)) % 10 == 0


def _pesel_date(digits: list[int]) -> bool:
    month = digits[2] * 10 + digits[3]
    century = {4: 1800, 0: 1900, 1: 2000, 2: 2100, 3: 2200}[month // 20]
    try:
        date(century + digits[0] * 10 + digits[1], month % 20, digits[4] * 10 + digits[5])
    except ValueError:
        return False
    return True


def dutch_bsn(text: str) -> bool:
    """The eleven test: weights 9 to 2, then -1."""
    digits = [int(d) for d in digits_of(text)]
    if len(digits) != 9 or not any(digits):
        return False
    return sum(w * d for w, d in zip((9, 8, 7, 6, 5, 4, 3, 2, -1), digits, strict=True)) % 11 == 0
