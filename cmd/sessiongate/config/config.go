// Package config reads the gateway's YAML configuration. It refuses what it
// does not know and what would be unsafe, tells everything that is wrong at
// once with line and column, and never repeats a secret.
package config

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// Config is one valid configuration. The tags are the schema: the key's name,
// its default (a list's items are separated by blanks), the words it may hold,
// and whether it may be left out.
type Config struct {
	Listen          string         `yaml:"listen" default:":8080"`
	TLS             ServerTLS      `yaml:"tls"`
	TrustedProxies  []netip.Prefix `yaml:"trusted_proxies"`
	ShutdownDelay   time.Duration  `yaml:"shutdown_delay" default:"5s"`
	ShutdownTimeout time.Duration  `yaml:"shutdown_timeout" default:"30s"`
	Limits          Limits         `yaml:"limits"`
	Admin           Admin          `yaml:"admin"`
	Log             Log            `yaml:"log"`
	Session         Session        `yaml:"session"`
	Apps            []App          `yaml:"apps" required:"true"`

	// Files are the absolute paths of everything the configuration was read
	// from: a change of any of them is a reason to reload.
	Files []string `json:"-"`

	src *source
}

// ServerTLS is the certificate of the public listener, and what becomes of those
// who come without TLS.
type ServerTLS struct {
	Cert     File   `yaml:"cert"`
	Key      File   `yaml:"key"`
	Redirect string `yaml:"redirect"`

	// Certificate is what the files hold; nil when none are named.
	Certificate *tls.Certificate `json:"-"`
}

// TLS names a certificate with its key, as PEM files.
type TLS struct {
	Cert File `yaml:"cert"`
	Key  File `yaml:"key"`

	// Certificate is what the files hold; nil when none are named.
	Certificate *tls.Certificate `json:"-"`
}

// Limits protect the public listener, and upstreams from those who hold them up.
type Limits struct {
	HeaderBytes       int           `yaml:"header_bytes" default:"32768"`
	Connections       int           `yaml:"connections" default:"0"`
	LoginPerMinute    int           `yaml:"login_per_minute" default:"60"`
	BodyTimeout       time.Duration `yaml:"body_timeout" default:"1m"`
	WriteTimeout      time.Duration `yaml:"write_timeout" default:"1m"`
	StreamsPerSession int           `yaml:"streams_per_session" default:"100"`
	H2Streams         int           `yaml:"h2_streams" default:"100"`
	SessionsInMemory  int           `yaml:"sessions_in_memory" default:"50000"`
}

// Admin is the listener for health and metrics, and for sessions where there is
// a token or a socket.
type Admin struct {
	Listen string `yaml:"listen" default:"127.0.0.1:9180"`
	Token  Secret `yaml:"token"`
	Socket Path   `yaml:"socket"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug info warn error"`
	Format string `yaml:"format" default:"json" enum:"json text"`
	Access bool   `yaml:"access" default:"false"`
}

// Session holds what all apps' sessions have in common.
type Session struct {
	Keys        []Secret      `yaml:"keys" required:"true"`
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"30m"`
	Lifetime    time.Duration `yaml:"lifetime" default:"12h"`
	MaxPerUser  int           `yaml:"max_per_user" default:"0"`
	Cookie      Cookie        `yaml:"cookie"`
	Store       Store         `yaml:"store"`
}

// Cookie describes the session cookie.
type Cookie struct {
	Name       string `yaml:"name"`
	SameSite   string `yaml:"same_site" default:"strict" enum:"strict lax" hint:"none would send the session with every cross-site request"`
	Persistent bool   `yaml:"persistent" default:"false"`
}

// Store says where sessions are kept: in Redis, or else in a file.
type Store struct {
	Bbolt Bbolt  `yaml:"bbolt"`
	Redis *Redis `yaml:"redis"`
}

// Bbolt is a store in one file, for one process. The path is empty where there is
// a Redis.
type Bbolt struct {
	Path Path `yaml:"path" default:"sessions.db"`
}

// Redis is a store for any number of processes, in Redis or Valkey. Without
// RedisTLS they are talked to in plain TCP.
type Redis struct {
	Addresses         []string      `yaml:"addresses" required:"true"`
	Username          Secret        `yaml:"username"`
	Password          Secret        `yaml:"password"`
	DB                int           `yaml:"db" default:"0"`
	TLS               *RedisTLS     `yaml:"tls"`
	Sentinel          Sentinel      `yaml:"sentinel"`
	Cluster           bool          `yaml:"cluster" default:"false"`
	Prefix            string        `yaml:"prefix" default:"sessiongate:"`
	Liveness          time.Duration `yaml:"liveness" default:"1s"`
	Grace             time.Duration `yaml:"grace" default:"0s"`
	WaitReplicas      int           `yaml:"wait_replicas" default:"0"`
	InsecurePlaintext bool          `yaml:"insecure_plaintext" default:"false"`
}

// RedisTLS says whom to trust as the Redis.
type RedisTLS struct {
	CA File `yaml:"ca"`

	// Pool is what the file holds; nil when none is named: the system's CAs.
	Pool *x509.CertPool `json:"-"`
}

// Sentinel says how to find the server by Sentinels; without a master there are
// none.
type Sentinel struct {
	Master   string `yaml:"master"`
	Username Secret `yaml:"username"`
	Password Secret `yaml:"password"`
}

// App is one single-page app at one origin.
type App struct {
	Origin          string          `yaml:"origin" required:"true"`
	TLS             TLS             `yaml:"tls"`
	BasePath        string          `yaml:"base_path" default:"/bff"`
	OIDC            OIDC            `yaml:"oidc" required:"true"`
	Routes          []Route         `yaml:"routes"`
	SecurityHeaders SecurityHeaders `yaml:"security_headers"`
	CORS            CORS            `yaml:"cors"`
}

// OIDC is an app's client at its provider.
type OIDC struct {
	Issuer       string            `yaml:"issuer" required:"true"`
	DiscoveryURL string            `yaml:"discovery_url"`
	CA           File              `yaml:"ca"`
	ClientID     string            `yaml:"client_id" required:"true"`
	ClientSecret Secret            `yaml:"client_secret"`
	ClientAuth   string            `yaml:"client_auth" enum:"client_secret_basic client_secret_post private_key_jwt"`
	ClientKey    File              `yaml:"client_key"`
	Audiences    []string          `yaml:"audiences"`
	Scopes       []string          `yaml:"scopes" default:"openid profile email offline_access"`
	AuthParams   map[string]string `yaml:"auth_params"`
	LoginParams  []string          `yaml:"login_params" default:"prompt login_hint ui_locales acr_values max_age"`
	RefreshAhead time.Duration     `yaml:"refresh_ahead" default:"60s"`
	Timeout      time.Duration     `yaml:"timeout" default:"10s"`
	ClockSkew    time.Duration     `yaml:"clock_skew" default:"60s"`
	Logout       Logout            `yaml:"logout"`
	UserClaims   []string          `yaml:"user_claims" default:"sub name email preferred_username picture roles groups"`

	// Pool and Signer are what CA and ClientKey hold; nil when not named.
	Pool   *x509.CertPool `json:"-"`
	Signer crypto.Signer  `json:"-"`
}

// Logout says what a logout does besides ending the session here, and how the
// provider can end it.
type Logout struct {
	EndSession      bool     `yaml:"end_session" default:"true"`
	IDTokenHint     bool     `yaml:"id_token_hint" default:"true"`
	Revoke          bool     `yaml:"revoke" default:"true"`
	After           string   `yaml:"after" default:"/"`
	AllowMissingExp bool     `yaml:"allow_missing_exp" default:"false"`
	Hosts           []string `yaml:"hosts"`
}

// Route sends what is below a path to an upstream or to static files.
type Route struct {
	Path                 string          `yaml:"path" required:"true"`
	Upstream             *url.URL        `yaml:"upstream"`
	Static               *Static         `yaml:"static"`
	Kind                 string          `yaml:"kind" default:"api" enum:"api page"`
	Auth                 string          `yaml:"auth" default:"required" enum:"required optional none"`
	Token                string          `yaml:"token" enum:"access none"`  // default: access; empty where auth is none
	CSRF                 string          `yaml:"csrf" enum:"header origin"` // default: by kind; empty where auth is none
	Methods              []string        `yaml:"methods"`
	StripPrefix          string          `yaml:"strip_prefix"`
	Headers              RequestHeaders  `yaml:"headers"`
	ResponseHeaders      ResponseHeaders `yaml:"response_headers"`
	ForwardAuthorization bool            `yaml:"forward_authorization" default:"false"`
	PreserveHost         bool            `yaml:"preserve_host" default:"false"`
	StreamKeepsAlive     bool            `yaml:"stream_keeps_alive" default:"false"`
	EndWithSession       bool            `yaml:"end_with_session" default:"false"`
	MaxBody              int64           `yaml:"max_body" default:"0"`
	Timeout              time.Duration   `yaml:"timeout" default:"30s"`
	InsecureHTTP         bool            `yaml:"insecure_http" default:"false"`
	TLS                  UpstreamTLS     `yaml:"tls"`
}

// Static is a directory of files.
type Static struct {
	Dir      Path   `yaml:"dir" required:"true"`
	Fallback string `yaml:"fallback"`
}

// RequestHeaders are changes to requests on their way to the upstream. The
// values are secrets, because API keys are what people put there.
type RequestHeaders struct {
	Set    map[string]Secret `yaml:"set"`
	Remove []string          `yaml:"remove"`
}

// ResponseHeaders are changes to answers on their way to the browser.
type ResponseHeaders struct {
	Set    map[string]string `yaml:"set"`
	Remove []string          `yaml:"remove"`
}

// UpstreamTLS says whom to trust as the upstream and who we are to it.
type UpstreamTLS struct {
	CA                 File `yaml:"ca"`
	Cert               File `yaml:"cert"`
	Key                File `yaml:"key"`
	InsecureSkipVerify bool `yaml:"insecure_skip_verify" default:"false"`

	// Pool and Certificate are what the files hold; nil when not named.
	Pool        *x509.CertPool   `json:"-"`
	Certificate *tls.Certificate `json:"-"`
}

// SecurityHeaders go on gateway-made pages and static files.
type SecurityHeaders struct {
	CSP            string `yaml:"csp"`
	FrameAncestors string `yaml:"frame_ancestors" default:"'none'"`
	HSTS           int    `yaml:"hsts" default:"31536000"`
}

// CORS lists other origins that may call the routes.
type CORS struct {
	Origins []string `yaml:"origins"`
}

// Secret is a value that is never shown: only Reveal gives it away.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String, GoString and MarshalText keep secrets out of %v, %#v, slog and JSON.
func (s Secret) String() string { return "[secret]" }

// GoString is for %#v.
func (s Secret) GoString() string { return "[secret]" }

// MarshalText is for slog and encoding/json.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// File is the absolute path of a file that is read at the start and watched.
type File string

// Path is an absolute path.
type Path string

// maxSize bounds the configuration and each ${file:…}: neither is ever large,
// but a path may name a device by mistake.
const maxSize = 1 << 20

// Load reads and validates the configuration in a file. Its error is a Problems
// unless the file cannot be read.
//
// With a Problems, Files and Admin of the Config are good, unless it is nil: a
// change of Files may mend the configuration, and Admin is where a process asks
// for the health of one that runs by an older version of it.
func Load(path string) (*Config, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, &Unreadable{err}
	}
	return Parse(path, text)
}

// Unreadable is the error of a configuration file that cannot be read at all.
type Unreadable struct{ err error }

func (u *Unreadable) Error() string { return "config: " + u.err.Error() }
func (u *Unreadable) Unwrap() error { return u.err }

// Parse is Load for a text that was read from path, or would have been: relative
// paths in it are relative to path's directory.
func Parse(path string, text []byte) (*Config, error) {
	src, err := newSource(path, text)
	if err != nil {
		return nil, err
	}
	c := &Config{src: src}
	d := &decoder{src: src, files: []string{src.path}}
	d.document(c)
	c.Files = d.files
	c.complete()
	c.validate()
	if len(src.problems) > 0 {
		return c, src.finish(src.problems)
	}
	return c, nil
}

// Problem describes something wrong with a key that only showed when the
// configuration was put to use, in the form of Load's errors.
func (c *Config) Problem(key, what, fix string) error {
	return c.src.finish(Problems{c.src.problem(key, what, fix)})
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return os.ReadFile(path)
}
