package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/go-jose/go-jose/v4/jwt"
)

// The ways by which a client authenticates itself (Core 1.0, section 9).
const (
	secretBasic   = "client_secret_basic"
	secretPost    = "client_secret_post"
	privateKeyJWT = "private_key_jwt"
)

// checkClientAuth refuses a client that could not authenticate itself (LOG-02).
func (c *Config) checkClientAuth() error {
	switch c.ClientAuth {
	case "":
		if c.ClientSecret == "" && c.ClientKey == nil {
			return errors.New("oidc: neither client_secret nor client_key is given; a gateway is a confidential client")
		}
	case secretBasic, secretPost:
		if c.ClientSecret == "" {
			return fmt.Errorf("oidc: client_auth %s needs client_secret", c.ClientAuth)
		}
	case privateKeyJWT:
		if c.ClientKey == nil {
			return errors.New("oidc: client_auth private_key_jwt needs client_key")
		}
	default:
		return fmt.Errorf("oidc: client_auth %q is none of %s, %s, %s", c.ClientAuth, secretBasic, secretPost, privateKeyJWT)
	}
	if c.ClientKey != nil {
		if len(signingAlgorithms(c.ClientKey.Public())) == 0 {
			return fmt.Errorf("oidc: client_key: a key of type %T cannot be used", c.ClientKey.Public())
		}
	}
	return nil
}

// authMethod is configured, or follows from the credentials and the metadata. It
// is never found out by trial: that would send a secret where it does not belong.
func (c *Client) authMethod(md *metadata) string {
	switch {
	case c.cfg.ClientAuth != "":
		return c.cfg.ClientAuth
	case c.cfg.ClientSecret == "":
		return privateKeyJWT
	// Discovery 1.0, section 3: the default is client_secret_basic.
	case len(md.AuthMethods) == 0 || slices.Contains(md.AuthMethods, secretBasic):
		return secretBasic
	}
	return secretPost
}

// authenticate adds the client's credentials to a request's form or header.
func (c *Client) authenticate(md *metadata, form url.Values, header http.Header) error {
	switch c.authMethod(md) {
	case secretBasic:
		// RFC 6749, section 2.3.1: both are form-urlencoded before they are joined.
		req := http.Request{Header: header}
		req.SetBasicAuth(url.QueryEscape(c.cfg.ClientID), url.QueryEscape(c.cfg.ClientSecret))
	case secretPost:
		form.Set("client_id", c.cfg.ClientID)
		form.Set("client_secret", c.cfg.ClientSecret)
	case privateKeyJWT:
		assertion, err := c.assertion(md)
		if err != nil {
			return err
		}
		form.Set("client_id", c.cfg.ClientID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	return nil
}

// assertionLife is short: an assertion is used at once.
const assertionLife = time.Minute

// assertion is a JWT by which the client authenticates itself (RFC 7523, section
// 3, as updated by RFC 10070): for the issuer alone, as a plain string, and not
// for whatever endpoint the metadata names (LOG-17).
func (c *Client) assertion(md *metadata) (string, error) {
	algs := signingAlgorithms(c.cfg.ClientKey.Public())
	alg := algs[0]
	for _, a := range algs {
		if slices.Contains(md.AuthAlgorithms, string(a)) {
			alg = a
			break
		}
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: alg, Key: cryptosigner.Opaque(c.cfg.ClientKey)},
		(&jose.SignerOptions{}).WithType("client-authentication+jwt"))
	if err != nil {
		return "", fmt.Errorf("oidc: client_key: %w", err)
	}
	now := time.Now()
	signed, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": c.cfg.ClientID,
		"sub": c.cfg.ClientID,
		"aud": c.cfg.Issuer,
		"jti": rand.Text(),
		"iat": now.Unix(),
		"exp": now.Add(assertionLife).Unix(),
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("oidc: client_key: %w", err)
	}
	return signed, nil
}

// signingAlgorithms are those of a key, the usual one first.
func signingAlgorithms(public crypto.PublicKey) []jose.SignatureAlgorithm {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.RS384, jose.PS384, jose.RS512, jose.PS512}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			return []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	}
	return nil
}
