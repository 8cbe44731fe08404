from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Submission(_message.Message):
    __slots__ = ("source", "document", "key_id", "signature", "wait_verified", "tag")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    WAIT_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    source: str
    document: bytes
    key_id: str
    signature: bytes
    wait_verified: bool
    tag: int
    def __init__(self, source: _Optional[str] = ..., document: _Optional[bytes] = ..., key_id: _Optional[str] = ..., signature: _Optional[bytes] = ..., wait_verified: _Optional[bool] = ..., tag: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("tag", "taken", "problem")
    TAG_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    tag: int
    taken: Taken
    problem: Problem
    def __init__(self, tag: _Optional[int] = ..., taken: _Optional[_Union[Taken, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("receipt", "source", "verified", "results")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    receipt: str
    source: str
    verified: bool
    results: _containers.RepeatedCompositeFieldContainer[Result]
    def __init__(self, receipt: _Optional[str] = ..., source: _Optional[str] = ..., verified: _Optional[bool] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("step", "detail", "retry_after", "results")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    step: str
    detail: str
    retry_after: float
    results: _containers.RepeatedCompositeFieldContainer[Result]
    def __init__(self, step: _Optional[str] = ..., detail: _Optional[str] = ..., retry_after: _Optional[float] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("device", "accepted", "standing", "effect", "why", "journal", "milliseconds", "failed", "step", "detail")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    device: str
    accepted: bool
    standing: str
    effect: str
    why: str
    journal: int
    milliseconds: float
    failed: str
    step: str
    detail: str
    def __init__(self, device: _Optional[str] = ..., accepted: _Optional[bool] = ..., standing: _Optional[str] = ..., effect: _Optional[str] = ..., why: _Optional[str] = ..., journal: _Optional[int] = ..., milliseconds: _Optional[float] = ..., failed: _Optional[str] = ..., step: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...
