package devprovider

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// The methods of client authentication (OpenID Connect Core, 9).
const (
	ClientSecretBasic = "client_secret_basic"
	ClientSecretPost  = "client_secret_post"
	PrivateKeyJWT     = "private_key_jwt"
)

var authMethods = []string{ClientSecretBasic, ClientSecretPost, PrivateKeyJWT}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

var assertionAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

func assertionAlgorithmNames() []string {
	var names []string
	for _, a := range assertionAlgorithms {
		names = append(names, string(a))
	}
	return names
}

// authenticate finds the client of a request and checks its credential: one
// method (RFC 6749, 2.3), and only one that is registered for it.
func (p *Provider) authenticate(x *exchange) (*Client, *oauthError) {
	form := x.r.PostForm
	if x.r.URL.RawQuery != "" {
		return nil, &oauthError{code: "invalid_request", description: "parameters in the URL"}
	}
	if name := repeated(form); name != "" {
		return nil, &oauthError{code: "invalid_request", description: "repeated parameter " + name}
	}
	id, secret, basic := x.r.BasicAuth()
	post, assertion := form.Has("client_secret"), form.Has("client_assertion")
	var method string
	switch {
	case basic && !post && !assertion:
		method = ClientSecretBasic
		// RFC 6749, 2.3.1: both were form-encoded before they were joined.
		var errID, errSecret error
		id, errID = url.QueryUnescape(id)
		secret, errSecret = url.QueryUnescape(secret)
		if errID != nil || errSecret != nil || (form.Has("client_id") && form.Get("client_id") != id) {
			return nil, unauthenticated(method, "malformed credential")
		}
	case post && !basic && !assertion:
		method, id, secret = ClientSecretPost, form.Get("client_id"), form.Get("client_secret")
	case assertion && !basic && !post:
		method, id = PrivateKeyJWT, claimedID(form.Get("client_assertion"))
	case basic || post || assertion:
		return nil, &oauthError{code: "invalid_request", description: "more than one client authentication"}
	default:
		return nil, unauthenticated("", "no client authentication")
	}
	x.event.ClientID, x.event.AuthMethod = id, method
	c := p.client(id)
	if c == nil || !slices.Contains(c.AuthMethods, method) {
		return nil, unauthenticated(method, "unknown client or method not registered for it")
	}
	if method == PrivateKeyJWT {
		if err := p.checkAssertion(c, form); err != "" {
			return nil, unauthenticated(method, err)
		}
		return c, nil
	}
	if subtle.ConstantTimeCompare([]byte(secret), []byte(c.Secret)) != 1 {
		return nil, unauthenticated(method, "wrong secret")
	}
	return c, nil
}

func unauthenticated(method, description string) *oauthError {
	e := &oauthError{code: "invalid_client", description: description, status: http.StatusUnauthorized}
	if method == ClientSecretBasic {
		e.challenge = `Basic realm="devprovider"`
	}
	return e
}

// assertionClaims keeps aud as it came: RFC 10070 asks for the issuer as the
// sole value, and FAPI 2.0 for a string.
type assertionClaims struct {
	jwt.Claims
	Audience any `json:"aud"`
}

// claimedID is the client that an assertion says it is from.
func claimedID(assertion string) string {
	var claims assertionClaims
	if parsed, err := jwt.ParseSigned(assertion, assertionAlgorithms); err == nil {
		parsed.UnsafeClaimsWithoutVerification(&claims) // verified by checkAssertion
	}
	return claims.Subject
}

// checkAssertion returns what is wrong with a client assertion (RFC 7523, 3).
func (p *Provider) checkAssertion(c *Client, form url.Values) string {
	if form.Get("client_assertion_type") != assertionType {
		return "wrong client_assertion_type"
	}
	parsed, err := jwt.ParseSigned(form.Get("client_assertion"), assertionAlgorithms)
	if err != nil {
		return "no JWT"
	}
	var claims assertionClaims
	if err := parsed.Claims(c.PublicKey, &claims); err != nil {
		return "bad signature"
	}
	now := p.cfg.Now()
	switch {
	case claims.Issuer != c.ID || claims.Subject != c.ID:
		return "iss and sub are not the client"
	case claims.Audience != any(p.cfg.Issuer):
		return "aud is not the issuer and nothing else"
	case claims.Expiry == nil || now.After(claims.Expiry.Time()):
		return "expired"
	case claims.Expiry.Time().Sub(now) > 10*time.Minute:
		return "lives for too long"
	case claims.ID == "":
		return "no jti"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.assertions[claims.ID] {
		return "used before"
	}
	p.assertions[claims.ID] = true
	return ""
}
