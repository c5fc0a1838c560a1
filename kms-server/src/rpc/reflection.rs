//! gRPC reflection, so that tools can list and call the services without the .proto files. For
//! `kms-server dev` alone: elsewhere these methods are unknown.
//!
//! It tells what the .proto files say and nothing of this node, needs no permission and leaves no
//! record; but its caller has shown a certificate.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Where its methods are, in both versions that tools speak.
pub(super) const PATHS: &str = "/grpc.reflection.";

/// Adds it to the services of a listener: it lists these by name, health and itself.
pub(super) fn add(routes: Routes, names: &[&'static str]) -> Result<Routes, Error> {
    let about = |own: &'static str| {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(kms_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HEALTH)
            .with_service_name(own);
        names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let v1 = about("grpc.reflection.v1.ServerReflection").build_v1()?;
    let v1alpha = about("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

const HEALTH: &str = "grpc.health.v1.Health";
