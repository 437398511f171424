//! Signatures of requests to Amazon Managed Prometheus and its Alertmanager, by the AWS SDK's own signer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_ec2::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The service's name in signatures.
const SERVICE: &str = "aps";
/// How long credentials may take to be there.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long before their end credentials are asked for anew.
const RENEW: Duration = Duration::from_mins(5);

/// Signs for one account and region. Clones share their credentials.
#[derive(Clone, Debug)]
pub struct Signer {
    provider: SharedCredentialsProvider,
    region: String,
    known: Known,
}

/// The provider keeps none: it would ask AWS for each signature.
#[derive(Clone, Debug, Default)]
struct Known(Arc<Mutex<Option<Credentials>>>);

impl Known {
    /// What is known, if that lasts; else what `fresh` gives. Credentials without an end
    /// are of files or variables, which may change.
    async fn or(
        &self,
        now: SystemTime,
        fresh: impl Future<Output = Result<Credentials, String>>,
    ) -> Result<Credentials, String> {
        let mut known = self.0.lock().await;
        let lasts = |time: SystemTime| {
            let known = known.as_ref();
            known.filter(|known| known.expiry().is_some_and(|end| time < end))
        };
        if let Some(known) = lasts(now + RENEW) {
            return Ok(known.clone());
        }
        match fresh.await {
            Ok(fresh) => Ok(known.insert(fresh).clone()),
            Err(error) => lasts(now).cloned().ok_or(error),
        }
    }
}

impl Signer {
    /// Finds credentials where every AWS tool does, and renews them before they end.
    pub async fn connect(region: &str) -> Result<Self, String> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .load()
            .await;
        let provider = config
            .credentials_provider()
            .ok_or("there are no AWS credentials")?;
        Ok(Self {
            provider,
            region: region.to_owned(),
            known: Known::default(),
        })
    }

    /// The headers that sign a request of this method and body.
    pub async fn sign(
        &self,
        method: &str,
        url: &str,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<(String, String)>, String> {
        let fresh = async {
            timeout(DEADLINE, self.provider.provide_credentials())
                .await
                .map_err(|_| "the AWS credentials take too long".to_owned())?
                .map_err(|error| format!("there are no AWS credentials: {error}"))
        };
        let credentials = self.known.or(now, fresh).await?;
        signature(method, url, body, &self.region, credentials, now)
    }
}

fn signature(
    method: &str,
    url: &str,
    body: &[u8],
    region: &str,
    credentials: Credentials,
    now: SystemTime,
) -> Result<Vec<(String, String)>, String> {
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let request = SignableRequest::new(method, url, std::iter::empty(), SignableBody::Bytes(body))
        .map_err(|error| error.to_string())?;
    let (signed, _) = sign(request, &params)
        .map_err(|error| error.to_string())?
        .into_parts();
    Ok(signed
        .headers()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_are_asked_for_before_they_end_and_not_for_each_request() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let until = |end: Option<u64>| Credentials::new("A", "S", None, end.map(at), "test");
        let known = Known::default();
        let down = || std::future::ready(Err("down".to_owned()));
        assert_eq!(known.or(at(0), down()).await, Err("down".into()));
        let hour = until(Some(3600));
        let fresh = std::future::ready(Ok(hour.clone()));
        assert_eq!(known.or(at(0), fresh).await, Ok(hour.clone()));
        // Nobody is asked.
        let never = std::future::pending();
        assert_eq!(known.or(at(3299), never).await, Ok(hour.clone()));
        assert_eq!(known.or(at(3300), down()).await, Ok(hour.clone()));
        assert_eq!(known.or(at(3600), down()).await, Err("down".into()));
        for end in [Some(7200), None, None] {
            let fresh = std::future::ready(Ok(until(end)));
            assert_eq!(known.or(at(7000), fresh).await, Ok(until(end)));
        }
    }

    /// The expected signature was computed by hand from the published algorithm.
    #[test]
    fn a_request_has_one_signature() {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "SECRETEXAMPLE",
            Some("SESSION".into()),
            None,
            "test",
        );
        let signed = signature(
            "POST",
            "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1/api/v1/query",
            b"query=up+%3D%3D+0&timeout=10s",
            "eu-central-1",
            credentials,
            "2026-01-01T00:00:00Z"
                .parse::<jiff::Timestamp>()
                .unwrap()
                .into(),
        )
        .unwrap();
        let header = |name: &str| {
            let found = signed.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("x-amz-date"), Some("20260101T000000Z"));
        assert_eq!(header("x-amz-security-token"), Some("SESSION"));
        assert_eq!(
            header("authorization"),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-central-1/aps/aws4_request, \
                 SignedHeaders=host;x-amz-date;x-amz-security-token, \
                 Signature=bc5a31cc6dc751c077fc93bd77e83a09279458f33ee248b137ffa17c1791a363"
            )
        );
    }
}
