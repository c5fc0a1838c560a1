//! A session with AWS: who we are and where, for the length of one call of the joint.
//!
//! Nothing is kept between calls: no connection, no credential, no task. Calls are rare (a start, a roll, a probe a
//! minute) and come from more than one runtime; what a pool kept for the first would hang in the next. And a daemon
//! that serves has no credentials of AWS in its memory, least of all those that may delete a key.

use std::net::IpAddr;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kms::config::{ConfigBag, Intercept, ProvideCredentials as _, RuntimeComponents};
use aws_sdk_kms::error::BoxError;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tracing::{instrument::WithSubscriber as _, subscriber::NoSubscriber};

use super::super::AwsKmsSettings;
use super::error::{AwsError, Class, chain_of};
use super::names::KeyArn;

/// As whom a call is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Wraps, unwraps and looks: what a daemon needs to live.
    Serve,
    /// Makes, tags, disables and destroys keys.
    Roll,
}

/// AWS KMS, to be called.
pub(super) struct Session {
    pub(super) kms: Client,
    /// Where it is, for messages.
    pub(super) place: String,
}

impl Session {
    /// Finds region and credentials. A key's calls go to its own region.
    pub(super) async fn begin(
        settings: &AwsKmsSettings,
        role: Role,
        session_name: &str,
        key: Option<&KeyArn>,
    ) -> Result<Self, AwsError> {
        if settings.endpoint_url.as_deref().is_some_and(|url| !keeps_secrets(url)) {
            return Err(AwsError::unavailable(
                "backend.aws_endpoint_url is neither https:// nor on this machine: epoch keys would cross the network in \
                 clear; set the https address of the endpoint",
            ));
        }
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS_MAX)
            .with_initial_backoff(BACKOFF_FIRST)
            .with_max_backoff(BACKOFF_MAX);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIME_MAX)
            .operation_attempt_timeout(ATTEMPT_TIME_MAX)
            .build();
        let found = ProviderConfig::without_region()
            .with_behavior_version(Some(behavior()))
            .with_http_client(http.clone())
            .with_retry_config(retries.clone())
            .with_timeout_config(timeouts.clone());
        // On a machine that is none of AWS's nobody may answer at all.
        let machine = imds::Client::builder()
            .configure(&found)
            .max_attempts(1)
            .connect_timeout(MACHINE_TIME_MAX)
            .operation_timeout(MACHINE_TIME_MAX)
            .build();

        let set = key.map(KeyArn::region).or(settings.region.as_deref());
        let region = match set {
            Some(region) => Region::new(region.to_owned()),
            None => region_of_surroundings(&found, machine.clone()).await?,
        };
        let place = settings.endpoint_url.clone().unwrap_or_else(|| region.to_string());
        let chain = DefaultCredentialsChain::builder()
            .configure(found)
            .region(region.clone())
            .imds_client(machine)
            .build()
            .await;
        let own = chain.provide_credentials().await.map_err(|error| no_credentials("no AWS credentials", &error))?;
        let config = aws_config::defaults(behavior())
            .region(region)
            .http_client(http)
            .retry_config(retries)
            .timeout_config(timeouts)
            .credentials_provider(own.clone())
            .load()
            .await;
        let credentials = match (role, &settings.roll_role_arn) {
            (Role::Serve, _) | (Role::Roll, None) => own,
            (Role::Roll, Some(role)) => {
                let roll = AssumeRoleProvider::builder(role)
                    .session_name(session_name)
                    .session_length(ROLE_TIME)
                    .configure(&config)
                    .build()
                    .await;
                let assumed = roll.provide_credentials().await;
                assumed.map_err(|error| no_credentials(&format!("the role {role} could not be assumed"), &error))?
            }
        };
        let mut config = aws_sdk_kms::config::Builder::from(&config).credentials_provider(credentials);
        if let Some(url) = &settings.endpoint_url {
            config = config.endpoint_url(url);
        }
        // The address may also come from AWS's variables and files.
        let config = config.interceptor(KeepsSecrets);
        Ok(Self { kms: Client::from_conf(config.build()), place })
    }
}

/// Gives a call of the joint its time, credentials included, and lets nothing of it into the log: what AWS's library
/// traces has access keys in it, and by a variable of the environment whole requests, with the epoch key.
pub(super) async fn within<T>(
    what: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, AwsError>>,
) -> Result<T, AwsError> {
    let call = tokio::time::timeout(CALL_TIME_MAX, call.with_subscriber(NoSubscriber::default()));
    call.await.unwrap_or_else(|_| {
        Err(AwsError::unavailable(format!(
            "{}: nothing came of it within {} s, credentials included; check the network, backend.aws_region and \
             backend.aws_endpoint_url",
            what(),
            CALL_TIME_MAX.as_secs()
        )))
    })
}

async fn region_of_surroundings(found: &ProviderConfig, machine: imds::Client) -> Result<Region, AwsError> {
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::builder().configure(found).build())
        .or_else(ImdsRegionProvider::builder().configure(found).imds_client(machine).build());
    chain.region().await.ok_or_else(|| {
        AwsError::unavailable(
            "no AWS region: none is in the environment (AWS_REGION), in the profile, or known to this machine; set \
             backend.aws_region",
        )
    })
}

fn no_credentials(what: &str, error: &(dyn std::error::Error + 'static)) -> AwsError {
    let why = chain_of(error);
    // What was not reached has said nothing of us.
    let unreached = ["dispatch failure", "timed out", "timeout", "connect"].iter().any(|sign| why.contains(sign));
    let class = if unreached && !why.contains("service error") { Class::Unavailable } else { Class::Credentials };
    AwsError::new(
        class,
        format!(
            "{what}: {why}; check what AWS's default chain finds for this process: AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, AWS_PROFILE, a web identity, or the role of the machine or container"
        ),
    )
}

/// Returns whether what is sent to an address can be read by those it is meant for alone.
fn keeps_secrets(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => {
            host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
        }
        _ => false,
    }
}

/// Lets no request out whose epoch key would cross the network in clear, wherever its address came from.
#[derive(Debug)]
struct KeepsSecrets;

impl Intercept for KeepsSecrets {
    fn name(&self) -> &'static str {
        "KeepsSecrets"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if keeps_secrets(context.request().uri()) {
            Ok(())
        } else {
            Err("the address of AWS KMS is neither https:// nor on this machine: epoch keys would cross the network in clear; \
                 look at backend.aws_endpoint_url, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KMS and the profile"
                .into())
        }
    }
}

/// Pinned: what AWS's library does by default changes with this, and with nothing else.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// To open a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// For one try of one of AWS's operations.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(3);
/// Tries of one of AWS's operations.
const ATTEMPTS_MAX: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// For all of a call of the joint. A start makes one, and must end in ten seconds.
const CALL_TIME_MAX: Duration = Duration::from_secs(8);
/// For the machine's own metadata, which is one hop away or not there.
const MACHINE_TIME_MAX: Duration = Duration::from_secs(1);
/// What AWS allows as the shortest.
const ROLE_TIME: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_epoch_key_crosses_a_network_in_clear() {
        for url in ["https://vpce-1.kms.eu-central-1.vpce.amazonaws.com", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(keeps_secrets(url), "{url}");
        }
        for url in
            ["http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "", "x"]
        {
            assert!(!keeps_secrets(url), "{url}");
        }
    }
}
