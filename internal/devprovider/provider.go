// Package devprovider is an OpenID provider to develop and test against: it
// signs, rotates refresh tokens and detects their reuse as a strict provider
// does, and it is slow, down or wrong when told to (see Fault).
//
// It is a development tool and refuses to be anything else: whoever can reach it
// can log in as any of its users, everything lives in memory, and every token is
// remembered in the clear for the tests to search for. So New takes a loopback
// issuer only, and a request that arrived through any other interface is refused.
package devprovider

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config describes a provider. Issuer and Clients are required.
type Config struct {
	Issuer  string // http(s)://loopback[:port][/path]
	Clients []Client
	Users   []User

	Audience        string        // aud of access tokens; default "api"
	AccessTokenTTL  time.Duration // default 5 minutes
	RefreshTokenTTL time.Duration // of each refresh token; default 24 hours
	IDTokenTTL      time.Duration // default 5 minutes

	Key *rsa.PrivateKey  // the first signing key; default a new one
	Now func() time.Time // default time.Now
}

// Client is a registered client. Everything it presents must be registered,
// character by character.
type Client struct {
	ID                     string
	Name                   string // shown on the login page; default ID
	Secret                 string
	PublicKey              crypto.PublicKey // for private_key_jwt
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	AuthMethods            []string // default client_secret_basic; no other method is accepted

	BackChannelLogoutURI       string // where logout tokens go; none: the client hears of no logout
	BackChannelSessionRequired bool   // logout tokens name the session (sid), not the user alone
	FrontChannelLogoutURI      string // framed with iss and sid by the page that ends a session
}

// User is somebody who can log in: by a click, or with a password if one is set.
type User struct {
	Sub      string
	Name     string
	Email    string
	Password string
	Claims   map[string]any // more claims of ID token and userinfo
}

// Provider is the provider, an http.Handler. Safe for concurrent use.
type Provider struct {
	cfg     Config
	path    string // the issuer's path, without trailing slash
	cookie  string
	secure  bool
	handler http.Handler

	mu         sync.Mutex // guards the rest
	keys       []signingKey
	sessions   map[string]*session      // by cookie value
	codes      map[string]*code         // by value, spent ones too
	refreshes  map[string]*refreshToken // by value, spent ones too
	accesses   map[string]*grant        // by jti; absent: revoked
	grants     []*grant
	assertions map[string]bool // ids of client assertions, which count once
	faults     map[Endpoint][]*Fault
	arrived    map[Endpoint]int
	events     []Event
	tokens     []Minted
	logouts    []SentLogout
}

// session is a browser's session with the provider, the source of single sign-on.
type session struct {
	sid      string
	user     *User
	authTime time.Time
}

// code is an authorization code with all that it was issued for.
type code struct {
	client      *Client
	session     *session
	redirectURI string
	challenge   string
	nonce       string
	scope       []string
	authTime    time.Time
	expires     time.Time
	spent       bool
	grant       *grant // what it was redeemed for
}

// grant is what one login gave one client: a family of refresh tokens.
type grant struct {
	id       string
	client   *Client
	user     *User
	sid      string
	scope    []string
	authTime time.Time
	revoked  bool
	left     bool // the session it came from has ended, and the client was told
	minted   int  // access tokens so far
}

type refreshToken struct {
	grant   *grant
	expires time.Time
	spent   bool
}

// New returns a provider. It fails on anything that is not a loopback issuer and
// on registrations that could never work.
func New(cfg Config) (*Provider, error) {
	issuer, err := url.Parse(cfg.Issuer)
	if err != nil || issuer.Host == "" || strings.HasSuffix(issuer.Path, "/") || issuer.RawQuery != "" {
		return nil, fmt.Errorf("devprovider: issuer %q is no URL without trailing slash and query", cfg.Issuer)
	}
	if !loopback(issuer.Hostname()) {
		return nil, fmt.Errorf("devprovider: issuer %q: a development provider is for loopback only", cfg.Issuer)
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	key, err := newKey(cfg.Key)
	if err != nil {
		return nil, err
	}
	p := &Provider{
		cfg:  cfg,
		path: issuer.Path,
		// Cookies ignore ports, so the name tells providers on one host apart.
		cookie:     "devprovider-" + issuer.Port(),
		secure:     issuer.Scheme == "https",
		keys:       []signingKey{key},
		sessions:   map[string]*session{},
		codes:      map[string]*code{},
		refreshes:  map[string]*refreshToken{},
		accesses:   map[string]*grant{},
		assertions: map[string]bool{},
		faults:     map[Endpoint][]*Fault{},
		arrived:    map[Endpoint]int{},
	}
	p.handler = p.routes()
	return p, nil
}

// complete fills in defaults and checks what the caller gave. The lists are
// copied, so that the caller's stay as they were.
func (c *Config) complete() error {
	c.Audience = cmp.Or(c.Audience, "api")
	c.AccessTokenTTL = cmp.Or(c.AccessTokenTTL, 5*time.Minute)
	c.RefreshTokenTTL = cmp.Or(c.RefreshTokenTTL, 24*time.Hour)
	c.IDTokenTTL = cmp.Or(c.IDTokenTTL, 5*time.Minute)
	if min(c.AccessTokenTTL, c.IDTokenTTL) < time.Second {
		return errors.New("devprovider: tokens count whole seconds, they cannot live for less than one")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Users = slices.Clone(c.Users)
	c.Clients = slices.Clone(c.Clients)
	if len(c.Clients) == 0 {
		return errors.New("devprovider: no client given")
	}
	for i := range c.Clients {
		if err := c.Clients[i].complete(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) complete() error {
	c.Name = cmp.Or(c.Name, c.ID)
	if len(c.AuthMethods) == 0 {
		c.AuthMethods = []string{ClientSecretBasic}
	}
	for _, m := range c.AuthMethods {
		switch {
		case !slices.Contains(authMethods, m):
			return fmt.Errorf("devprovider: client %q: unknown auth method %q", c.ID, m)
		case m == PrivateKeyJWT && c.PublicKey == nil, m != PrivateKeyJWT && c.Secret == "":
			return fmt.Errorf("devprovider: client %q has no credential for %s", c.ID, m)
		}
	}
	for _, uri := range []string{c.BackChannelLogoutURI, c.FrontChannelLogoutURI} {
		// Absolute, a query but no fragment (Back-Channel Logout 1.0, 2.2; Front-Channel Logout 1.0, 2).
		u, err := url.Parse(uri)
		if uri != "" && (err != nil || u.Host == "" || strings.Contains(uri, "#")) {
			return fmt.Errorf("devprovider: client %q: %q cannot be told of a logout", c.ID, uri)
		}
	}
	return nil
}

// loopback says whether a host name cannot leave this machine (RFC 6761, 6.3).
func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// ServeHTTP implements http.Handler. It answers on loopback only.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		http.Error(w, "a development provider answers on loopback only", http.StatusForbidden)
		return
	}
	p.handler.ServeHTTP(w, r)
}

func (p *Provider) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, e Endpoint, serve func(*exchange) answer) {
		mux.Handle(method+" "+p.path+path, p.endpoint(e, serve))
	}
	handle("GET", "/.well-known/openid-configuration", Discovery, p.discovery)
	handle("GET", "/jwks", JWKS, p.jwks)
	handle("GET", "/authorize", Authorize, p.authorize)
	handle("POST", "/authorize", Authorize, p.authorize) // OpenID Connect Core, 3.1.2.1: both
	handle("POST", "/login", Login, p.login)
	handle("POST", "/token", Token, p.token)
	handle("GET", "/userinfo", UserInfo, p.userinfo)
	handle("POST", "/userinfo", UserInfo, p.userinfo)
	handle("POST", "/revoke", Revocation, p.revocation)
	handle("GET", "/logout", EndSession, p.endSession)
	handle("POST", "/logout", EndSession, p.endSession)
	mux.HandleFunc("GET "+p.path+"/style.css", serveStyle)
	return mux
}

// discovery answers with the metadata of OpenID Connect Discovery 1.0, 3. A
// Fault's Edit makes all its variations.
func (p *Provider) discovery(*exchange) answer {
	at := func(path string) string { return p.cfg.Issuer + path }
	methods := p.authMethods()
	return answer{json: map[string]any{
		"issuer":                                p.cfg.Issuer,
		"authorization_endpoint":                at("/authorize"),
		"token_endpoint":                        at("/token"),
		"userinfo_endpoint":                     at("/userinfo"),
		"jwks_uri":                              at("/jwks"),
		"revocation_endpoint":                   at("/revoke"),
		"end_session_endpoint":                  at("/logout"),
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 []string{"authorization_code", "refresh_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"claims_supported":                      []string{"sub", "name", "email", "auth_time", "sid"},
		"code_challenge_methods_supported":      []string{"S256"},
		"prompt_values_supported":               []string{"none", "login", "select_account", "consent"},

		"token_endpoint_auth_methods_supported":                 methods,
		"token_endpoint_auth_signing_alg_values_supported":      assertionAlgorithmNames(),
		"revocation_endpoint_auth_methods_supported":            methods,
		"revocation_endpoint_auth_signing_alg_values_supported": assertionAlgorithmNames(),
		"authorization_response_iss_parameter_supported":        true,
		"request_parameter_supported":                           false,
		"request_uri_parameter_supported":                       false,
		"backchannel_logout_supported":                          true,
		"backchannel_logout_session_supported":                  true,
		"frontchannel_logout_supported":                         true,
		"frontchannel_logout_session_supported":                 true,
	}}
}

// authMethods is what any of the clients may use, in a fixed order.
func (p *Provider) authMethods() []string {
	var used []string
	for _, m := range authMethods {
		if slices.ContainsFunc(p.cfg.Clients, func(c Client) bool { return slices.Contains(c.AuthMethods, m) }) {
			used = append(used, m)
		}
	}
	return used
}

func (p *Provider) client(id string) *Client {
	i := slices.IndexFunc(p.cfg.Clients, func(c Client) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &p.cfg.Clients[i]
}
