"""Personal data is found where its check digits are right, and prose is left alone."""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import phonenumbers
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban, luhn

from foundation_core.data.steps.national import IDS, NationalId, nicaraguan_id, salvadoran_id, uruguayan_id
from foundation_core.data.steps.personal import Personal
from foundation_core.data.steps.secrets import entropy_bits
from foundation_core.errors import SetupError
from foundation_core.specs import IngestSpec
from foundation_core.specs.cleaning import Country, PersonalSpec

SPEC = PersonalSpec(use=True)


def masked(text: str, spec: PersonalSpec = SPEC) -> str:
    (found,) = Personal(spec)(pa.array([text], pa.large_string())).texts.to_pylist()
    return str(found)


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=count, max_size=count)


# ------------------------------------------------------------------------------------------------ contacts, accounts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail ana.lopez+x@mail.example.co.uk, please.", "Mail <EMAIL>, please."),
        ("<bob@example.org> and (eve@example.com)", "<<EMAIL>> and (<EMAIL>)"),
        ("Escriba a josé@correo.es.", "Escriba a <EMAIL>."),
        ("from 93.184.216.34:8080.", "from <IP_ADDRESS>:8080."),
        ("host 2606:2800:220:1:248:1893:25c8:1946 is up", "host <IP_ADDRESS> is up"),
        ("call +34 912 345 678 today", "call <PHONE> today"),
        ("Tel.: (212) 736-5000, ext. 2", "Tel.: <PHONE>, ext. 2"),
        ("Teléfono 91 234 56 78 o móvil: 612 34 56 78", "Teléfono <PHONE> o móvil: <PHONE>"),
        ("+34 612 345 678 2020", "<PHONE> 2020"),
        ("pay 4111 1111 1111 1111 now", "pay <CARD> now"),
        ("amex 378282246310005.", "amex <CARD>."),
        ("IBAN ES91 2100 0418 4502 0005 1332 THE END", "IBAN <IBAN> THE END"),
        ("DE89370400440532013000", "<IBAN>"),
    ],
)
def test_what_reaches_somebody_or_pays_is_replaced_and_nothing_around_it(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "@property", "a@b", "getty@tty1.service", "icon@2x.png", "x @ y.z",
        "version 120.4.200.34", "libfoo-1.2.3.4", "libfoo (1.2.3.4)", "1.2.3.4", "4.3.99.16", "1.3.6.1.4.1",
        "300.1.2.3", "cafe::beef", "+34 123 456 789",
        "127.0.0.1 and 192.168.0.1 and 10.0.0.255", "::1", "fe80::1", "std::cafe::beef", "12:34:56", "2001-02-03",
        "+0000", "2 + 34 912", "Decimal('+35236450.6')", "phone 42", "tel. 1.5", "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112", "41111111 11111111", "0.4111111111111111", "4111111111111111.25", "0000 0000 0000 0000",
        "ES92 2100 0418 4502 0005 1332", "ABCD12345678", "GODE561231GR9", "2020-01-31 10:20:30.123456", "12345678",
    ],
)  # fmt: skip
def test_versions_dates_code_and_wrong_check_digits_stay(text: str) -> None:
    assert masked(text) == text


def test_private_addresses_are_masked_where_the_spec_says_so() -> None:
    spec = SPEC.model_copy(update={"public_addresses_only": False})
    assert masked("at 192.168.0.1 or 10.0.0.255", spec) == "at <IP_ADDRESS> or <IP_ADDRESS>"


@given(body=digits(14), group=st.sampled_from(["", " ", "-"]))
def test_a_card_counts_exactly_if_its_last_digit_is_right(body: str, group: str) -> None:
    body = "4" + body
    for last in "0123456789":
        number = body + last
        written = group.join(number[at : at + 4] for at in range(0, 16, 4))
        assert masked(f"card {written}!", PersonalSpec(use=True, kinds=("card",))) == (
            "card <CARD>!" if luhn.is_valid(number) else f"card {written}!"
        )


@given(account=digits(20), wrong=st.integers(1, 96))
def test_an_iban_counts_exactly_if_its_check_digits_are_right(account: str, wrong: int) -> None:
    right = iban.calc_check_digits(f"ES00{account}")
    spec = PersonalSpec(use=True, kinds=("iban",))
    for check in (right, f"{(int(right) + wrong) % 97:02d}"):
        number = f"ES{check}{account}"
        assert masked(number, spec) == ("<IBAN>" if iban.is_valid(number) else number)


@pytest.mark.parametrize("country", SPEC.phone_countries)
def test_telephone_numbers_of_each_country_are_found_behind_a_plus_and_behind_a_word(country: str) -> None:
    example = phonenumbers.example_number(country.upper())
    abroad = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    home = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
    assert masked(f"I am at {abroad}.") == "I am at <PHONE>."
    assert masked(f"Tel.: {home}.") == "Tel.: <PHONE>."
    assert masked(f"I have {home} things") == f"I have {home} things"


# ---------------------------------------------------------------------------------------------------- national ids

KNOWN: dict[str, list[str]] = {
    "es": ["54362315K", "54362315-K", "12.345.678-Z", "X-2482300W", "CIF J99216582", "A-58818501"],
    "mx": ["BOXW310820HNERXN09", "GODE561231GR8"],
    "ar": ["20-05536168-2", "CUIT 20055361682", "C.U.I.T.: 20055361682", "DNI 20.123.456", "D.N.I. N° 20123456"],
    "co": ["213.123.432-1", "NIT: 213123432-1", "C.C. 1.020.345.678"],
    "cl": ["12.531.909-2", "RUT 12531909-2", "R.U.T. 76086428-5"],
    "pe": ["RUC 20512333797", "RUC N° 20512333797", "DNI: 10117410-2"],
    "ve": ["V-11470283-4", "RIF V114702834"],
    "ec": ["C.I. 1714307103", "cédula: 171430710-3", "RUC 1792060346001"],
    "gt": ["NIT 576937-K"],
    "cu": ["Carnet de identidad: 91021027775"],
    "do": ["001-1391820-5", "cédula 00113918205", "RNC 101850043"],
    "sv": ["0614-050707-104-8", "DUI 00016297-5"],
    "py": ["RUC 80028061-0"],
    "uy": ["21-100342-001-7", "RUT 211003420017", "1.234.567-2", "CI 12345672"],
    "cr": ["Cédula 3-0455-0175", "3-101-999999"],
    "bo": ["CI 4567890", "C.I. 4.567.890", "cédula de identidad: 4567890-1A", "carnet de identidad 4567890-LP"],
    "hn": ["DNI 0801-1990-12345", "identidad No. 0801199012345", "Número de identidad: 1807-2001-00321"],
    "ni": ["001-010190-0001N", "486-180689-0001X", "cédula 0010101900001N"],
    "pa": ["Cédula 8-123-456", "C.I.P. PE-123-4567", "cédula: E-8-123456", "cédula 13-1234-12345", "CI N-19-12345"],
}
NOT_IDS = [
    "CI 456", "en 0801-1990-12345 casos", "DNI 1901-1990-12345", "DNI 0801-1890-12345", "001-010190-0001A",
    "001-311390-0001H", "cédula 14-123-456", "el 8-123-456", "CI 4567890-XX",
]  # fmt: skip


@pytest.mark.parametrize(("country", "written"), [(country, one) for country, all_ in KNOWN.items() for one in all_])
def test_ids_of_each_country_are_found_as_people_write_them(country: Country, written: str) -> None:
    spec = PersonalSpec(use=True, kinds=("national_id",), countries=(country,))
    name, _, number = written.rpartition(" ")
    expected = f"Dice: {name} <NATIONAL_ID>.".replace("  ", " ")
    assert masked(f"Dice: {name} {number}.".replace("  ", " "), spec) == expected
    others = tuple(other for other in SPEC.countries if other != country)
    assert masked(f"Dice: {number}.", spec.model_copy(update={"countries": others[:1]})) == f"Dice: {number}."


@pytest.mark.parametrize("written", NOT_IDS)
def test_what_has_not_the_form_the_name_or_the_letter_stays(written: str) -> None:
    spec = PersonalSpec(use=True, kinds=("national_id",), countries=("bo", "hn", "ni", "pa"))
    assert masked(f"Dice: {written}.", spec) == f"Dice: {written}."


@given(body=digits(13))
def test_one_letter_is_right_for_a_nicaraguan_number(body: str) -> None:
    right = [letter for letter in "ABCDEFGHIJKLMNÑOPQRSTUVWXYZ" if nicaraguan_id(body + letter)]
    assert len(right) == 1
    assert not nicaraguan_id(str((int(body) + 1) % 10**13).zfill(13) + right[0])


FORMS = {
    "stdnum.ar.cuit": "20-########-#", "stdnum.co.nit": "###.###.###-#", "stdnum.cl.rut": "##.###.###-#",
    "stdnum.ve.rif": "V-########-#", "stdnum.do.cedula": "###-#######-#", "stdnum.do.rnc": "#-##-#####-#",
    "stdnum.sv.nit": "0###-######-###-#", "stdnum.uy.rut": "21-######-001-#", "uruguayan_id": "#.###.###-#",
    "stdnum.es.cif": "A-########",
}  # fmt: skip


@pytest.mark.parametrize("each", [each for each in IDS if each.check in FORMS], ids=lambda each: each.check)
def test_a_number_of_a_form_counts_exactly_if_its_check_digit_is_right(each: NationalId) -> None:
    chance = random.Random(each.check)
    is_right = uruguayan_id if each.check == "uruguayan_id" else import_module(each.check).is_valid
    numbers = [re.sub("#", lambda _: str(chance.randrange(10)), FORMS[each.check]) for _ in range(300)]
    right = [number for number in numbers if is_right(number.replace(".", ""))]
    assert 10 < len(right) < 60
    spec = PersonalSpec(use=True, kinds=("national_id",), countries=(each.country,))
    found = masked("\n".join(numbers), spec).split("\n")
    assert [number for number, after in zip(numbers, found, strict=True) if number != after] == right


@pytest.mark.parametrize("is_right", [uruguayan_id, salvadoran_id])
@given(body=digits(8))
def test_one_last_digit_of_ten_is_right_for_ids_that_the_library_lacks(
    is_right: Callable[[str], bool], body: str
) -> None:
    body = body[: 7 if is_right is uruguayan_id else 8]
    assert sum(is_right(body + last) for last in "0123456789") == 1


def test_what_is_written_like_any_number_counts_only_behind_its_name() -> None:
    numbers = ["20055361682", "20512333797", "1714307103", "00113918205", "80028061-0", "00016297-5", "20.123.456"]
    for number in numbers:
        assert (
            masked(f"the value {number} is", PersonalSpec(use=True, kinds=("national_id",))) == f"the value {number} is"
        )


# -------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AWS AKIAQ3EGRT5ZK7WPLM2X ok", "AWS <SECRET> ok"),
        ("ghp_" + "aB3dE5gH7j" * 3 + "kL9mN1", "<SECRET>"),
        ("api_key = 'q8Zr2Lw9Xc4Vb7Nm1Ks6'", "api_key = '<SECRET>'"),
        ('"password": "h7Gf2kQ9zX4vB8nM"', '"password": "<SECRET>"'),
        ("export ACCESS_TOKEN=q8Zr2Lw9Xc4Vb7Nm1Ks6", "export ACCESS_TOKEN=<SECRET>"),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow" * 20 + "\n-----END RSA PRIVATE KEY-----\nb",
            "a\n<SECRET>\nb",
        ),
    ],
)
def test_keys_are_known_by_their_issuers_form_and_by_what_they_are_assigned_to(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "token = self.tokenizer.next_token", "password = getpass.getpass('Password for user: ')", "secret: changeme",
        "token = aaaaaaaaaaaaaaaaaaaaa1a1a1a1", "token=some_long_identifier_name", "-----BEGIN PUBLIC KEY-----",
        "password: 1234567890123456", "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "api_key=os.environ['API_KEY_NAME1']", "token = makeToken1a2b3c4d5(name)",
    ],
)  # fmt: skip
def test_code_that_only_speaks_of_secrets_stays(text: str) -> None:
    assert masked(text) == text


def test_how_random_a_secret_must_be_is_the_specs_word() -> None:
    text = "api_key = 'a1b2a1b2a1b2a1b2a1b2'"
    assert entropy_bits("a1b2" * 5) == 2.0
    assert masked(text) == text
    assert masked(text, SPEC.model_copy(update={"least_secret_bits": 2.0})) == "api_key = '<SECRET>'"


# ----------------------------------------------------------------------------------------------------------- whole


def test_only_the_kinds_of_the_spec_are_replaced_and_by_its_placeholder() -> None:
    text = "ana@example.org, 4111 1111 1111 1111, +34 912 345 678"
    spec = PersonalSpec(use=True, kinds=("card", "email"), placeholder="[{kind}]")
    assert masked(text, spec) == "[EMAIL], [CARD], +34 912 345 678"
    assert masked(text, PersonalSpec(use=True, placeholder="…")) == "…, …, …"
    nowhere = PersonalSpec(use=True, countries=(), phone_countries=())
    assert masked("RUT 12.531.909-2, tel. 912 345 678, +34 912 345 678", nowhere).endswith("tel. 912 345 678, <PHONE>")


def test_counts_are_by_kind_and_text() -> None:
    stepped = Personal(SPEC)(pa.array(["a@b.org c@d.org 1.1.1.200", "", "nothing", "e@f.org"], pa.large_string()))
    counts = {kind: of.to_pylist() for kind, of in stepped.changes.items()}
    assert set(counts) == set(SPEC.kinds)
    assert counts["email"] == [2, 0, 0, 1]
    assert counts["ip_address"] == [1, 0, 0, 0]
    assert sum(map(sum, counts.values())) == 4


@given(texts=st.lists(st.text("0123456789 .-/+@:ABESVXZabct'\"=\n<>()", max_size=60), max_size=4))
def test_masking_twice_is_masking_once_and_what_has_no_count_is_as_it_was(texts: list[str]) -> None:
    once = Personal(SPEC)(pa.array(texts, pa.large_string()))
    assert Personal(SPEC)(once.texts).texts.equals(once.texts)
    counts = [sum(of) for of in zip(*(each.to_pylist() for each in once.changes.values()), strict=True)]
    for before, after, count in zip(texts, once.texts.to_pylist(), counts, strict=True):
        assert after.count("<") - before.count("<") == count or "<" in before
        assert (before == after) == (count == 0)


def test_prose_and_source_of_pythons_library_hold_next_to_no_numbers_of_people() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = [
        path.read_text() for folder in ("asyncio", "email", "json", "http") for path in (root / folder).glob("*.py")
    ]
    found = Personal(SPEC)(pa.array(texts, pa.large_string())).changes
    counts = {kind: sum(of.to_pylist()) for kind, of in found.items()}
    assert counts.pop("email") >= 1, "the control: their authors' addresses"
    assert sum(counts.values()) <= 1, counts


@pytest.mark.parametrize("placeholder", ["<1>", "x@y"])
def test_a_placeholder_that_could_be_data_is_refused(placeholder: str) -> None:
    with pytest.raises(ValueError, match="could be taken for data"):
        PersonalSpec(placeholder=placeholder)


def test_a_spec_that_looks_for_nothing_or_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would be looked for"):
        PersonalSpec(use=True, kinds=())
    with pytest.raises(ValueError, match="named twice"):
        PersonalSpec(kinds=("card", "card"))
    assert not IngestSpec().cleaning.personal.use


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundation_core.plugins.find_spec", lambda module: None if module == "stdnum" else object())
    with pytest.raises(SetupError, match="stdnum is not installed"):
        Personal(SPEC)
