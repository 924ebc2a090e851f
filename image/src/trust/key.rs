//! Public keys in PEM, and what they verify. Signatures are made over SHA-256, as cosign does whatever the key.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

/// A public key.
pub(super) struct Key(ParsedPublicKey);

impl Key {
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| "it holds no public key in PEM (BEGIN PUBLIC KEY)".to_owned())?;
        let algorithms: [&'static dyn VerificationAlgorithm; 5] = [
            &ECDSA_P256_SHA256_ASN1,
            &ECDSA_P384_SHA256_ASN1,
            &ECDSA_P521_SHA256_ASN1,
            &ED25519,
            &RSA_PKCS1_2048_8192_SHA256,
        ];
        let parsed =
            algorithms.into_iter().find_map(|algorithm| ParsedPublicKey::new(algorithm, der.as_ref()).ok());
        let known = "its key is none of ECDSA (P-256, P-384, P-521), Ed25519 and RSA from 2048 bits on";
        parsed.map(Self).ok_or_else(|| known.to_owned())
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
