//! The calls by which people look into a running cluster and change how it behaves.

use std::future::ready;

use bytes::Bytes;
use highwater_protocol::native::events::ListEventsRequest;
use highwater_protocol::native::frame::{ApiKey, CorrelationId};
use highwater_protocol::native::inspect::InspectReplicaRequest;
use highwater_protocol::native::settings::{
    AlterSettingsRequest, DescribeSettingsRequest, DescribeSettingsResponse,
};
use highwater_protocol::wire::DecodeError;

use super::client_calls::{Answering, Calls, whole};

impl Calls {
    /// Begins one of them.
    pub(super) fn insight(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        body: &Bytes,
    ) -> Result<Answering, DecodeError> {
        let calls = self.clone();
        if api == ApiKey::DescribeSettings {
            let request = whole(body, DescribeSettingsRequest::decode)?;
            let found = self.api.describe_settings(request);
            let answer = self.answer(correlation, found, DescribeSettingsResponse::encode);
            return Ok(Box::pin(ready(answer)));
        }
        if api == ApiKey::ListEvents {
            let request = whole(body, ListEventsRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.list_events(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        if api == ApiKey::AlterSettings {
            let request = whole(body, AlterSettingsRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.alter_settings(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        let request = whole(body, InspectReplicaRequest::decode)?;
        Ok(Box::pin(async move {
            let result = calls.api.inspect_replica(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        }))
    }
}
