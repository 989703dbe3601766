"""Signs a request of S3's API: version 4 of the signature, in the header. Pure.

AWS' own libraries would bring their own connections, which follow redirects and look for credentials at the
metadata address.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNRESERVED: Final = "-_.~"
NO_BODY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A key and its secret, which is left out of `repr`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it is signed. `path` is not yet encoded; `sha256` is that of the body."""

    method: str
    host: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    sha256: str = NO_BODY

    @property
    def encoded_path(self) -> str:
        """The path as it is sent."""
        return quote(self.path, safe=f"/{UNRESERVED}")

    @property
    def encoded_query(self) -> str:
        """The query as it is sent: sorted by name."""
        pairs = sorted((_encoded(name), _encoded(value)) for name, value in self.query.items())
        return "&".join(f"{name}={value}" for name, value in pairs)


def signed_headers(
    request: Request, credentials: Credentials | None, *, region: str, now: datetime
) -> dict[str, str]:
    """The headers that sign a request at this time in UTC. Without credentials it is not signed."""
    if credentials is None:
        return {"x-amz-content-sha256": request.sha256}
    at = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": request.host, "x-amz-content-sha256": request.sha256, "x-amz-date": at}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join(
        (request.method, request.encoded_path, request.encoded_query, lines, names, request.sha256)
    )
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    to_sign = f"{ALGORITHM}\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={credentials.access_key_id}/{scope}"
    headers["authorization"] = f"{ALGORITHM} {credential},SignedHeaders={names},Signature={signature}"
    return headers


def _encoded(text: str) -> str:
    return quote(text, safe=UNRESERVED)
