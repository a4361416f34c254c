package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Route is a path of an app and what answers there (DESIGN.md, section 6). The
// zero value of a field is its default.
type Route struct {
	Path     string   // with a trailing slash a subtree, without one that path alone
	Upstream *url.URL // http, https, h2c, or unix with the socket's path; nil: Static
	Static   *Static
	Kind     Kind
	Auth     Auth
	Token    Token
	CSRF     CSRF
	Methods  []string // empty: all but TRACE and CONNECT

	StripPrefix          string
	Headers              Headers // of the upstream request
	ResponseHeaders      Headers
	ForwardAuthorization bool
	PreserveHost         bool
	MaxBody              int64         // bytes; 0: no limit
	Timeout              time.Duration // until the answer's header; 0: DefaultTimeout
	StreamKeepsAlive     bool          // an open stream counts as use of its session
	EndWithSession       bool          // all answers break off when their session ends, not WebSockets and event streams only
	TLS                  UpstreamTLS
	// InsecureHTTP allows plain http and h2c to a host that is neither loopback nor
	// private, where others can read the token on its way.
	InsecureHTTP bool
}

// Static serves files instead of forwarding.
type Static struct {
	Dir      string
	Fallback string // the file for navigations to paths that are no file
}

// Headers are fixed changes to a header.
type Headers struct {
	Set    map[string]string
	Remove []string
}

// The values of Route's fields, as the configuration writes them.
type (
	Kind  string
	Auth  string
	Token string
	CSRF  string
)

const (
	KindAPI  Kind = "api" // never redirects
	KindPage Kind = "page"

	AuthRequired Auth = "required"
	AuthOptional Auth = "optional"
	AuthNone     Auth = "none"

	TokenAccess Token = "access"
	TokenNone   Token = "none"

	CSRFHeader CSRF = "header"
	CSRFOrigin CSRF = "origin"
)

// DefaultTimeout is how long an upstream may take to the header of its answer.
const DefaultTimeout = 30 * time.Second

// anyMethod is the Allow field where no list is configured.
const anyMethod = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// route is a Route compiled.
type route struct {
	path    string
	loose   string // path, as loosely reads it
	app     *app
	page    bool
	auth    Auth
	token   bool // attach the session's access token
	csrf    CSRF
	methods []string
	allow   string
	strip   string // without trailing slash
	meters  *meters

	static *staticFiles

	proxy              *httputil.ReverseProxy
	transport          *http.Transport
	scheme, host, base string
	http2              bool   // the upstream speaks nothing else
	where              string // the upstream without its base
	enclosing          bool   // a route below it, on the same upstream, asks for more
	preserveHost       bool
	keepAuthorization  bool
	maxBody            int64
	keepsAlive         bool
	endsWithSession    bool
	requestRules       headerRules
	answerRules        headerRules
}

func newRoute(c Route, a *app, m *Metrics, log *slog.Logger) (*route, error) {
	rt := &route{
		path: c.Path, loose: loosely(c.Path), app: a, meters: m.meters(a.origin, c.Path),
		page: c.Kind == KindPage, auth: c.Auth, csrf: c.CSRF, methods: c.Methods, allow: anyMethod,
		strip: strings.TrimSuffix(c.StripPrefix, "/"), keepAuthorization: c.ForwardAuthorization,
		preserveHost: c.PreserveHost, maxBody: c.MaxBody,
		keepsAlive: c.StreamKeepsAlive, endsWithSession: c.EndWithSession,
	}
	if rt.auth == "" {
		rt.auth = AuthRequired
	}
	if rt.csrf == "" {
		rt.csrf = CSRFHeader
		if rt.page {
			rt.csrf = CSRFOrigin
		}
	}
	rt.token = rt.auth != AuthNone && c.Token != TokenNone && c.Upstream != nil
	if len(c.Methods) > 0 {
		rt.allow = strings.Join(c.Methods, ", ")
	}
	err := errors.Join(c.checkPath(), c.checkValues(), c.checkDestination())
	if err != nil {
		return nil, err
	}
	rt.requestRules, err = c.Headers.compile(rt.token || rt.keepAuthorization)
	if err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	rt.answerRules, err = c.ResponseHeaders.compile(false)
	if err != nil {
		return nil, fmt.Errorf("response_headers: %w", err)
	}
	if c.Static != nil {
		rt.static, err = newStaticFiles(c.Static.Dir, c.Static.Fallback)
		return rt, err
	}
	rt.connect(c, log)
	return rt, nil
}

func (c Route) checkPath() error {
	p, err := canonicalise(c.Path)
	switch strip := strings.TrimSuffix(c.StripPrefix, "/"); {
	case err != nil:
		return err
	case p.match != c.Path:
		return fmt.Errorf("path: write it as %q", p.match)
	case strip != "" && c.Path != strip && !strings.HasPrefix(c.Path, strip+"/"):
		return fmt.Errorf("strip_prefix %q is not a prefix of the path", c.StripPrefix)
	}
	return nil
}

func (c Route) checkValues() error {
	var faults []error
	check := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(!slices.Contains([]Kind{"", KindAPI, KindPage}, c.Kind), "kind %q is not api or page", c.Kind)
	check(!slices.Contains([]Auth{"", AuthRequired, AuthOptional, AuthNone}, c.Auth), "auth %q is not required, optional or none", c.Auth)
	check(!slices.Contains([]Token{"", TokenAccess, TokenNone}, c.Token), "token %q is not access or none", c.Token)
	check(!slices.Contains([]CSRF{"", CSRFHeader, CSRFOrigin}, c.CSRF), "csrf %q is not header or origin", c.CSRF)
	check(c.Auth == AuthNone && c.Token == TokenAccess, "there is no token with auth: none")
	check(c.Auth == AuthNone && c.CSRF != "", "csrf means nothing with auth: none")
	check((c.Auth == AuthNone || c.Static != nil) && (c.StreamKeepsAlive || c.EndWithSession), "stream_keeps_alive and end_with_session mean nothing with auth: none, or for static files")
	check(c.ForwardAuthorization && c.Auth != AuthNone, "forward_authorization is for auth: none only")
	check(c.MaxBody < 0 || c.Timeout < 0, "max_body and timeout are not negative")
	for _, m := range c.Methods {
		check(!isToken(m) || m != strings.ToUpper(m), "method %q is not a method in upper case", m)
		check(m == http.MethodTrace || m == http.MethodConnect, "method %s is never allowed", m)
	}
	return errors.Join(faults...)
}

// checkDestination refuses upstreams that are not one fixed place, or to which
// tokens would go in the clear (PX-04, PX-18).
func (c Route) checkDestination() error {
	u := c.Upstream
	if (u == nil) == (c.Static == nil) {
		return errors.New("needs upstream or static, and not both")
	}
	if u == nil {
		return nil
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return errors.New("upstream has a user, query or fragment")
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return errors.New("upstream: a socket is written unix:///path")
		}
		return nil
	case "http", "https", "h2c":
	default:
		return fmt.Errorf("upstream: scheme %q is not http, https, h2c or unix", u.Scheme)
	}
	if u.Hostname() == "" || strings.Contains(u.Host, "*") {
		return errors.New("upstream has no fixed host")
	}
	if u.EscapedPath() != "" {
		if _, err := canonicalise(u.EscapedPath()); err != nil {
			return fmt.Errorf("upstream: %w", err)
		}
	}
	if u.Scheme != "https" && !c.InsecureHTTP && !isNear(u.Hostname()) {
		return errors.New("upstream: plain http or h2c to a public host shows tokens to the network; use https, or insecure_http: true")
	}
	return nil
}

// isNear tells hosts that plain http may go to: loopback, private addresses and
// names without a dot, which only a local resolver knows.
func isNear(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		return ip.IsLoopback() || ip.IsPrivate() // not link-local: cloud metadata lives there
	}
	return isLoopback(host) || !strings.Contains(host, ".")
}

// connect prepares the way to the upstream.
func (rt *route) connect(c Route, log *slog.Logger) {
	rt.transport = newTransport(c)
	rt.scheme, rt.host, rt.base = c.Upstream.Scheme, c.Upstream.Host, c.Upstream.EscapedPath()
	if rt.scheme == "h2c" {
		rt.http2, rt.scheme = true, "http" // there is no other in URLs (RFC 9113, section 3.1)
	}
	rt.where = rt.scheme + "://" + rt.host
	if rt.scheme == "unix" {
		rt.where += c.Upstream.Path
		rt.scheme, rt.host, rt.base = "http", "localhost", ""
	}
	var upstream http.RoundTripper = rt.transport
	if rt.token {
		upstream = &renewing{upstream}
	}
	rt.proxy = &httputil.ReverseProxy{
		Rewrite: rt.rewrite, Transport: upstream, BufferPool: &buffers,
		ModifyResponse: modifyAnswer, ErrorHandler: noteFailure,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func (rt *route) close() {
	if rt.transport != nil {
		rt.transport.CloseIdleConnections()
	}
}

// allows tells whether the route answers a method; TRACE and CONNECT no route
// does.
func (rt *route) allows(method string) bool {
	return len(rt.methods) == 0 || slices.Contains(rt.methods, method)
}

// speaksHTTP2 tells whether the upstream may, which gRPC needs.
func (rt *route) speaksHTTP2() bool { return rt.http2 || rt.scheme == "https" }

// guardsFrom tells whether a route asks more of a request than another does that
// leads to the same upstream. No method is one that no list has.
func (rt *route) guardsFrom(other *route, method string) bool {
	switch {
	case rt.static != nil || other.static != nil || rt.where != other.where:
		return false
	case rt.auth != other.auth:
		return rank(rt.auth) > rank(other.auth)
	case rt.auth != AuthNone && rt.csrf == CSRFHeader && other.csrf == CSRFOrigin:
		return true
	}
	return !rt.allows(method)
}

func rank(a Auth) int { return slices.Index([]Auth{AuthNone, AuthOptional, AuthRequired}, a) }

// stripped is a path of this route without strip_prefix.
func (rt *route) stripped(path string) string {
	if path = strings.TrimPrefix(path, rt.strip); path == "" {
		return "/"
	}
	return path
}
