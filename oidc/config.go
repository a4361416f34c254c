// Package oidc logs users in and out at an OpenID provider. Client speaks with
// the provider: it finds its metadata and keys, redeems codes, refreshes and
// revokes tokens and verifies ID tokens and logout tokens. Endpoints serves what
// the browser asks for (login, callback, session, user, logout, events and the
// user's own sessions) and what the provider does: back-channel and front-channel
// logout.
package oidc

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config says which provider an app uses, as which client, and what it asks for.
type Config struct {
	Origin   string // scheme://host[:port] of the app
	BasePath string // where our endpoints are, such as "/bff"
	Issuer   string
	// DiscoveryURL is where to fetch the provider's metadata if not below the
	// issuer. What is found there must still name Issuer.
	DiscoveryURL string
	CA           *x509.CertPool // nil: the system's

	ClientID     string
	ClientSecret string
	ClientAuth   string // client_secret_basic, client_secret_post, private_key_jwt; "": by the metadata
	ClientKey    crypto.Signer

	Scopes      []string
	AuthParams  map[string]string // fixed parameters of the authorization request
	LoginParams []string          // parameters that a login may pass on

	// Audiences are those that an ID token may have besides the client.
	Audiences []string

	Timeout    time.Duration // of each call of the provider; 0: 10 s
	ClockSkew  time.Duration
	UserClaims []string // what the SPA may see, in this order
	Logout     Logout
	Log        *slog.Logger
}

// Logout says what a logout does beyond ending the session.
type Logout struct {
	EndSession  bool   // send the browser to the provider's end_session_endpoint
	IDTokenHint bool   // with the ID token
	Revoke      bool   // revoke the refresh token
	After       string // where a logout ends if no returnUrl is asked for; "": "/"
	// AllowMissingExp takes logout tokens without exp, which some providers send,
	// for two minutes from their iat.
	AllowMissingExp bool
}

// String keeps the client secret out of whatever prints a Config.
func (c Config) String() string { return "oidc.Config{" + c.Origin + " at " + c.Issuer + "}" }

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

// LogValue is String, for logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

const defaultTimeout = 10 * time.Second

// complete checks the configuration and fills in what has a default. It reports
// all that is wrong.
func (c *Config) complete() error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("oidc: "+format, args...))
	}
	if !secureURL(c.Issuer, false) {
		fail("issuer %q is not an https URL without query and fragment (http is for loopback only)", c.Issuer)
	}
	if c.DiscoveryURL != "" && !secureURL(c.DiscoveryURL, loopbackHTTP(c.Issuer)) {
		fail("discovery_url %q is not an https URL", c.DiscoveryURL)
	}
	if c.Origin == "" || strings.HasSuffix(c.Origin, "/") {
		fail("origin %q is not scheme://host", c.Origin)
	}
	if c.ClientID == "" {
		fail("client_id is missing")
	}
	// LOG-14: without it there is no ID token, and so nobody logged in.
	if !slices.Contains(c.Scopes, "openid") {
		fail("scopes lack openid")
	}
	for name := range c.AuthParams {
		if protocolParameter(name) {
			fail("auth_params: %q is the protocol's own", name)
		}
	}
	for _, name := range c.LoginParams {
		// LOG-13: which resource a token is for is not the browser's choice.
		if protocolParameter(name) || name == "resource" || name == "returnUrl" {
			fail("login_params: %q must not come from the browser", name)
		}
	}
	if err := c.checkClientAuth(); err != nil {
		errs = append(errs, err)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	after, err := ReturnURL(c.Logout.After, c.BasePath) // LO-06
	if err != nil {
		fail("logout.after: %w", err)
	}
	c.Logout.After = after
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// protocolParameter tells whether a parameter of the authorization request is
// ours to set alone.
func protocolParameter(name string) bool {
	switch name {
	case "client_id", "redirect_uri", "scope", "state", "nonce", "response_type", "response_mode", "claims":
		return true
	}
	return strings.HasPrefix(name, "code_challenge") || strings.HasPrefix(name, "request")
}

// secureURL tells whether a URL can be used for calls of the provider: https, or
// http on loopback; any http where plain is set.
func secureURL(s string, plain bool) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && (plain || loopback(u.Hostname()))
}

// loopbackHTTP tells whether an issuer is a local one for development, whose
// other URLs need no TLS either.
func loopbackHTTP(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && u.Scheme == "http" && loopback(u.Hostname())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}
