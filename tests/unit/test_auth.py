"""Keys and JWTs: what is signed, by whom, with which rights; and which names are never minted."""

from __future__ import annotations

import base64
from typing import Any

import nkeys
import pytest
from nacl.signing import VerifyKey

from bus import auth
from bus.errors import InvalidRequest

NOW_S = 1_800_000_000
KEYS = auth.new_keys()
QUOTA = auth.Quota(disk_bytes=10**9, memory_bytes=10**7, streams=8, consumers=16)
DAEMON = ("$JS.API.STREAM.INFO.LOG", "$JS.API.DIRECT.GET.LOG")
READER = ("$JS.API.DIRECT.GET.LOG",)
NEVER = ["*", ">", "a.b", "a*", "", " ", "A", "a" * 64, "_daemon-main", "%2A", "a\r\nPUB x", "é", "-a", "$SYS", "a>"]


def account(previous: str | None = None, quota: auth.Quota = QUOTA, now_s: int = NOW_S) -> str:
    return auth.account_jwt(KEYS, "acme", quota, DAEMON, READER, now_s, previous)


def mint(role: auth.Role = "agent", name: str = "atlas", **options: Any) -> auth.Credentials:
    return auth.mint(role, name, KEYS.role(role), KEYS.account.public, NOW_S, **options)


def is_signed_by(token: str, public: str) -> bool:
    signed, _, signature = token.rpartition(".")
    raw = base64.b32decode(public + "=" * (-len(public) % 8))[1:33]
    VerifyKey(raw).verify(signed.encode(), base64.urlsafe_b64decode(signature + "=="))
    return auth.decode(token)["iss"] == public


def jwt_in(creds: auth.Credentials) -> str:
    return creds.text.split("-----")[2].strip()


def template(role: str) -> dict[str, Any]:
    scopes = auth.decode(account())["nats"]["signing_keys"]
    return next(scope["template"] for scope in scopes if scope["role"] == role)


class TestKeys:
    @pytest.mark.parametrize(("kind", "letter"), [("operator", "O"), ("account", "A"), ("user", "U")])
    def test_a_pair_is_what_nkeys_reads(self, kind: Any, letter: str) -> None:
        pair = auth.new_pair(kind)
        assert pair.public.startswith(letter)
        assert nkeys.from_seed(bytearray(pair.seed.encode())).public_key.decode() == pair.public
        assert auth.pair_of(pair.seed) == pair

    def test_pairs_differ_and_secrets_do_not_print(self) -> None:
        assert auth.new_pair("user").seed != auth.new_pair("user").seed
        assert KEYS.operator.seed not in repr(KEYS)
        assert mint().text not in repr(mint())

    @pytest.mark.parametrize("seed", ["", "S", "SUAAAA", "x" * 58, pytest.param(KEYS.account.public, id="public")])
    def test_a_damaged_seed_is_refused(self, seed: str) -> None:
        with pytest.raises(InvalidRequest, match="damaged"):
            auth.pair_of(seed)


class TestNames:
    @pytest.mark.parametrize("name", NEVER)
    @pytest.mark.parametrize("role", auth.ROLES)
    def test_nothing_that_is_no_name_is_minted(self, role: auth.Role, name: str) -> None:
        with pytest.raises(InvalidRequest):
            mint(role, name, agents=["atlas"] if role == "projector" else ())

    @pytest.mark.parametrize("name", NEVER)
    def test_no_projector_forwards_for_what_is_no_name(self, name: str) -> None:
        with pytest.raises(InvalidRequest):
            mint("projector", "host", agents=["atlas", name])

    def test_system_is_reserved(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            mint("agent", "system")
        assert caught.value.code == "reserved_name"
        with pytest.raises(InvalidRequest):
            mint("projector", "host", agents=["system"])

    def test_other_roles_have_names_that_no_agent_can_have(self) -> None:
        names = {mint(role, "x", agents=["a"] if role == "projector" else ()).name for role in auth.ROLES}
        assert names == {"x", "_daemon-x", "_projector-x", "_admin-x"}
        assert mint("daemon", "main").inbox == "_INBOX._daemon-main"

    def test_only_projectors_forward(self) -> None:
        with pytest.raises(InvalidRequest):
            mint("projector", "host")
        with pytest.raises(InvalidRequest):
            mint("agent", "atlas", agents=["nova"])


class TestUsers:
    def test_a_user_carries_no_rights_of_its_own(self) -> None:
        creds = mint()
        claims = auth.decode(jwt_in(creds))
        assert claims["nats"] == {"type": "user", "version": 2, "issuer_account": KEYS.account.public}
        assert (claims["sub"], claims["name"], claims["iat"]) == (creds.public, "atlas", NOW_S)
        assert is_signed_by(jwt_in(creds), KEYS.agent.public)
        assert auth.read_credentials(creds.text) == creds

    def test_expiry(self) -> None:
        assert auth.decode(jwt_in(mint("admin", "main", ttl_s=60)))["exp"] == NOW_S + 60
        assert "exp" not in auth.decode(jwt_in(mint()))
        with pytest.raises(InvalidRequest):
            mint(ttl_s=0)

    def test_the_pusher_of_claims_can_do_only_that(self) -> None:
        claims = auth.decode(jwt_in(auth.mint_system(KEYS, NOW_S)))
        assert claims["nats"]["pub"] == {"allow": ["$SYS.REQ.CLAIMS.UPDATE"]}
        assert claims["nats"]["sub"] == {"allow": ["_INBOX._system-claims.>"]}
        assert claims["exp"] == NOW_S + auth.ADMIN_TTL_S

    @pytest.mark.parametrize(
        "text", ["", "hello", "-----BEGIN NATS USER JWT-----\nx.y.z\n------END NATS USER JWT------"]
    )
    def test_what_is_no_creds_file(self, text: str) -> None:
        with pytest.raises(InvalidRequest, match="not NATS user credentials"):
            auth.read_credentials(text)


class TestAccount:
    def test_the_table_of_rights(self) -> None:
        own = "_INBOX.{{name()}}.>"
        assert template("agent")["pub"] == {"allow": ["ask.{{name()}}.>"]}
        assert template("agent")["sub"] == {"allow": [own]}
        assert template("agent")["subs"] == auth.AGENT_SUBSCRIPTIONS
        assert template("agent")["payload"] == auth.AGENT_PAYLOAD_BYTES
        assert set(template("daemon")["pub"]["allow"]) == {"log.>", "_INBOX.>", "daemon.>", "$KV.leader.>", *DAEMON}
        assert template("daemon")["sub"] == {"allow": ["ask.>", "daemon.>", own]}
        assert set(template("projector")["pub"]["allow"]) == {"ask.{{tag(agent)}}.>", *READER}
        assert template("projector")["sub"] == {"allow": [own, "_INBOX.{{tag(agent)}}.>"]}
        assert template("admin")["sub"] == {"allow": [own]}
        assert not any(subject.startswith(("log", "ask", ">")) for subject in template("admin")["pub"]["allow"])

    def test_quotas_and_signer(self) -> None:
        claims = auth.decode(account())
        limits = claims["nats"]["limits"]
        assert (limits["disk_storage"], limits["mem_storage"]) == (10**9, 10**7)
        assert (limits["streams"], limits["consumer"], limits["leaf"]) == (8, 16, 0)
        assert (claims["sub"], claims["name"]) == (KEYS.account.public, "acme")
        assert is_signed_by(account(), KEYS.operator.public)
        assert is_signed_by(auth.operator_jwt(KEYS, NOW_S), KEYS.operator.public)
        assert is_signed_by(auth.system_jwt(KEYS, NOW_S), KEYS.operator.public)

    def test_unchanged_means_the_same_token(self) -> None:
        first = account()
        assert account(first, now_s=NOW_S + 100) == first

    def test_a_successor_is_always_dated_later(self) -> None:
        first = account()
        second = account(first, auth.Quota(disk_bytes=2 * 10**9))
        third = auth.revoked(second, KEYS.operator, ["UA"], NOW_S - 50)
        assert [auth.decode(token)["iat"] for token in (first, second, third)] == [NOW_S, NOW_S + 1, NOW_S + 2]

    def test_revocations_add_up_and_survive_a_new_quota(self) -> None:
        token = auth.revoked(account(), KEYS.operator, ["UA"], NOW_S + 5)
        token = auth.revoked(token, KEYS.operator, ["UB"], NOW_S + 6)
        token = account(token, auth.Quota(disk_bytes=2 * 10**9), NOW_S + 9)
        claims = auth.decode(token)
        assert claims["nats"]["revocations"] == {"UA": NOW_S + 5, "UB": NOW_S + 6}
        assert claims["nats"]["limits"]["disk_storage"] == 2 * 10**9
        assert is_signed_by(token, KEYS.operator.public)

    def test_a_tenant_has_a_name(self) -> None:
        with pytest.raises(InvalidRequest):
            auth.account_jwt(KEYS, "*", QUOTA, DAEMON, READER, NOW_S)
