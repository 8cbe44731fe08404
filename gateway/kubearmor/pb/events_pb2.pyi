from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RequestMessage(_message.Message):
    __slots__ = ("Filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    Filter: str
    def __init__(self, Filter: _Optional[str] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("Timestamp", "UpdatedTime", "HostName", "Type", "Level", "Message")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    UPDATEDTIME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    Timestamp: int
    UpdatedTime: str
    HostName: str
    Type: str
    Level: str
    Message: str
    def __init__(self, Timestamp: _Optional[int] = ..., UpdatedTime: _Optional[str] = ..., HostName: _Optional[str] = ..., Type: _Optional[str] = ..., Level: _Optional[str] = ..., Message: _Optional[str] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("Timestamp", "UpdatedTime", "HostName", "ContainerName", "PolicyName", "Severity", "Tags", "Message", "Type", "Source", "Operation", "Resource", "Data", "Action", "Result", "ProcessName", "Enforcer", "ATags", "MaxAlertsPerSec", "DroppingAlertsInterval", "EventData")
    class EventDataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    UPDATEDTIME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    CONTAINERNAME_FIELD_NUMBER: _ClassVar[int]
    POLICYNAME_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROCESSNAME_FIELD_NUMBER: _ClassVar[int]
    ENFORCER_FIELD_NUMBER: _ClassVar[int]
    ATAGS_FIELD_NUMBER: _ClassVar[int]
    MAXALERTSPERSEC_FIELD_NUMBER: _ClassVar[int]
    DROPPINGALERTSINTERVAL_FIELD_NUMBER: _ClassVar[int]
    EVENTDATA_FIELD_NUMBER: _ClassVar[int]
    Timestamp: int
    UpdatedTime: str
    HostName: str
    ContainerName: str
    PolicyName: str
    Severity: str
    Tags: str
    Message: str
    Type: str
    Source: str
    Operation: str
    Resource: str
    Data: str
    Action: str
    Result: str
    ProcessName: str
    Enforcer: str
    ATags: _containers.RepeatedScalarFieldContainer[str]
    MaxAlertsPerSec: int
    DroppingAlertsInterval: int
    EventData: _containers.ScalarMap[str, str]
    def __init__(self, Timestamp: _Optional[int] = ..., UpdatedTime: _Optional[str] = ..., HostName: _Optional[str] = ..., ContainerName: _Optional[str] = ..., PolicyName: _Optional[str] = ..., Severity: _Optional[str] = ..., Tags: _Optional[str] = ..., Message: _Optional[str] = ..., Type: _Optional[str] = ..., Source: _Optional[str] = ..., Operation: _Optional[str] = ..., Resource: _Optional[str] = ..., Data: _Optional[str] = ..., Action: _Optional[str] = ..., Result: _Optional[str] = ..., ProcessName: _Optional[str] = ..., Enforcer: _Optional[str] = ..., ATags: _Optional[_Iterable[str]] = ..., MaxAlertsPerSec: _Optional[int] = ..., DroppingAlertsInterval: _Optional[int] = ..., EventData: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ("Timestamp", "UpdatedTime", "HostName", "ContainerName", "Type", "Source", "Operation", "Resource", "Data", "Result", "ProcessName", "EventData")
    class EventDataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    UPDATEDTIME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    CONTAINERNAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROCESSNAME_FIELD_NUMBER: _ClassVar[int]
    EVENTDATA_FIELD_NUMBER: _ClassVar[int]
    Timestamp: int
    UpdatedTime: str
    HostName: str
    ContainerName: str
    Type: str
    Source: str
    Operation: str
    Resource: str
    Data: str
    Result: str
    ProcessName: str
    EventData: _containers.ScalarMap[str, str]
    def __init__(self, Timestamp: _Optional[int] = ..., UpdatedTime: _Optional[str] = ..., HostName: _Optional[str] = ..., ContainerName: _Optional[str] = ..., Type: _Optional[str] = ..., Source: _Optional[str] = ..., Operation: _Optional[str] = ..., Resource: _Optional[str] = ..., Data: _Optional[str] = ..., Result: _Optional[str] = ..., ProcessName: _Optional[str] = ..., EventData: _Optional[_Mapping[str, str]] = ...) -> None: ...
