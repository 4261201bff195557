from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tokencache._proto import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Freshness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
    FRESHNESS_UNSPECIFIED: _ClassVar[Freshness]
    FRESHNESS_VERIFIED: _ClassVar[Freshness]
    FRESHNESS_DEGRADED: _ClassVar[Freshness]
FRESHNESS_UNSPECIFIED: Freshness
FRESHNESS_VERIFIED: Freshness
FRESHNESS_DEGRADED: Freshness

class TokenSelector(_message.Message):
    __slots__ = ["credential", "scopes", "audience", "resources"]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    credential: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audience: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, credential: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., audience: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ["access_token", "token_type", "expires_at", "issued_at", "scopes", "generation", "fingerprint", "attributes"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    access_token: str
    token_type: str
    expires_at: _timestamp_pb2.Timestamp
    issued_at: _timestamp_pb2.Timestamp
    scopes: _containers.RepeatedScalarFieldContainer[str]
    generation: int
    fingerprint: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, access_token: _Optional[str] = ..., token_type: _Optional[str] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., scopes: _Optional[_Iterable[str]] = ..., generation: _Optional[int] = ..., fingerprint: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GetTokenRequest(_message.Message):
    __slots__ = ["credential", "scopes", "audience", "resources", "min_validity", "if_generation_not", "rejected_generation"]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MIN_VALIDITY_FIELD_NUMBER: _ClassVar[int]
    IF_GENERATION_NOT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    credential: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audience: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    min_validity: _duration_pb2.Duration
    if_generation_not: int
    rejected_generation: int
    def __init__(self, credential: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., audience: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ..., min_validity: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., if_generation_not: _Optional[int] = ..., rejected_generation: _Optional[int] = ...) -> None: ...

class GetTokenResponse(_message.Message):
    __slots__ = ["token", "not_modified", "freshness", "server_time"]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NOT_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    token: Token
    not_modified: bool
    freshness: Freshness
    server_time: _timestamp_pb2.Timestamp
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., not_modified: bool = ..., freshness: _Optional[_Union[Freshness, str]] = ..., server_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WatchTokensRequest(_message.Message):
    __slots__ = ["selectors"]
    SELECTORS_FIELD_NUMBER: _ClassVar[int]
    selectors: _containers.RepeatedCompositeFieldContainer[TokenSelector]
    def __init__(self, selectors: _Optional[_Iterable[_Union[TokenSelector, _Mapping]]] = ...) -> None: ...

class TokenInvalidated(_message.Message):
    __slots__ = ["min_generation"]
    MIN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    min_generation: int
    def __init__(self, min_generation: _Optional[int] = ...) -> None: ...

class WatchTokensResponse(_message.Message):
    __slots__ = ["selector", "token", "invalidated", "unavailable"]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    INVALIDATED_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    selector: TokenSelector
    token: Token
    invalidated: TokenInvalidated
    unavailable: _status_pb2.Status
    def __init__(self, selector: _Optional[_Union[TokenSelector, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., invalidated: _Optional[_Union[TokenInvalidated, _Mapping]] = ..., unavailable: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class InvalidateTokenRequest(_message.Message):
    __slots__ = ["credential", "scopes", "audience", "resources", "generation", "fingerprint", "http_status", "error", "description"]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    credential: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audience: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    generation: int
    fingerprint: str
    http_status: int
    error: str
    description: str
    def __init__(self, credential: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., audience: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ..., generation: _Optional[int] = ..., fingerprint: _Optional[str] = ..., http_status: _Optional[int] = ..., error: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class InvalidateTokenResponse(_message.Message):
    __slots__ = ["invalidated", "min_generation"]
    INVALIDATED_FIELD_NUMBER: _ClassVar[int]
    MIN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    invalidated: bool
    min_generation: int
    def __init__(self, invalidated: bool = ..., min_generation: _Optional[int] = ...) -> None: ...
