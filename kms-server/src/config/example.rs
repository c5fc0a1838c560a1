//! The example: a file with every setting, its meaning, bounds and default, made from the table.

use super::table::{Default, IDENTITY, ISSUER, SETTINGS, TRUST_DOMAIN};

/// Returns the example. What must be set, and what has no fixed default, has a value that shows how it is written.
pub fn example() -> String {
    let mut text = format!("{HEAD}\n");
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            text += &format!("\n[{section}]\n");
        }
        let hidden = if matches!(setting.default, Default::ElseHidden(_)) { "# " } else { "" };
        let line = format!("{hidden}{} = {}", setting.name, setting.example());
        let bounds = setting.kind.bounds().map(|bounds| format!("; {bounds}")).unwrap_or_default();
        let must = if matches!(setting.default, Default::Required(_)) { "; must be set" } else { "" };
        text += &format!("{line:COMMENT_AT$} # {}{bounds}{must}\n", setting.meaning);
    }
    let lists = LISTS.replace("{identity}", IDENTITY).replace("{issuer}", ISSUER);
    text + &lists.replace("{trust_domain}", TRUST_DOMAIN)
}

const HEAD: &str = "# /etc/kms/kms.toml: all settings, with their defaults. A path is relative to this file.";
const COMMENT_AT: usize = 37;
const LISTS: &str = "
# Callers whose certificates have no spiffe:// name; either by DNS name or by common name:
# [[{identity}]]
# dns = \"billing.internal\"
# principal = \"spiffe://example.com/billing\"
# [[{identity}]]
# cn = \"Backup job\"
# principal = \"spiffe://example.com/backup\"

# Trust domains whose names only these authorities vouch for; client_ca_file vouches for all others:
# [[{trust_domain}]]
# name = \"partner.example\"
# ca_file = \"partner.pem\"
# crl_files = [\"partner.crl\"]

# Issuers of bearer tokens (JWT), which are sent beside a client certificate:
# [[{issuer}]]
# issuer = \"https://idp.example.com\"    # the iss claim, exactly
# audiences = [\"kms.example.com\"]       # aud must hold one of them
# algorithms = [\"RS256\", \"ES256\"]     # no others; also RS384, RS512, PS256 to PS512, ES384, EdDSA
# jwks_file = \"jwks.json\"               # its keys; or jwks_url = \"https://...\", with jwks_ca_file if need be
# principal = \"spiffe://example.com/people/{sub}\" # what the sub claim becomes
# certificate = \"same\"                  # a token is presented with its own principal's certificate; or by whom:
#                                       # a list of principals, or \"any\"
# mfa = [\"mfa\"]                         # values of amr that show more than one factor
# clock_skew = \"60 s\"                   # at most 5 m
# [[{issuer}]]
# issuer = \"https://kubernetes.default.svc.cluster.local\"
# kind = \"kubernetes\"                   # sub is system:serviceaccount:NAMESPACE:NAME
# audiences = [\"kms.example.com\"]
# algorithms = [\"RS256\"]
# jwks_url = \"https://kubernetes.default.svc/openid/v1/jwks\"
# jwks_ca_file = \"kubernetes-ca.pem\"
# principal = \"spiffe://example.com/ns/{namespace}/sa/{name}\"
# certificate = \"any\"
";
