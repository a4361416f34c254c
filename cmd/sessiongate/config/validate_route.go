package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func (c *Config) validateRoute(key string, r *Route, base string, paths map[string]string) {
	if what := checkPath(r.Path); what != "" {
		c.report(key+".path", what, "write a plain path such as /api/ (a subtree) or /health (that path alone)")
	}
	if first, taken := paths[r.Path]; taken {
		c.report(key+".path", "is the same as "+first, "remove one")
	}
	paths[r.Path] = key + ".path"
	if isBelow(r.Path, base) {
		c.report(key+".path", "is below base_path, where the gateway's own endpoints are", "use another path, or another base_path")
	}
	if r.StripPrefix != "" && (checkPath(r.StripPrefix) != "" || !prefixOf(r.StripPrefix, r.Path)) {
		c.report(key+".strip_prefix", "is not a prefix of the route's path", "write whole segments from its beginning: /api for /api/")
	}
	switch static := c.src.has(key + ".static"); {
	case static && c.src.has(key+".upstream"):
		c.report(key+".static", "stands beside upstream", "keep one of them")
	case static:
		c.validateStatic(key, r)
	case r.Upstream == nil:
		c.report(key+".upstream", "is missing, and static too", "say where the route leads: upstream: http://127.0.0.1:9000, or static: {dir: dist}")
	default:
		c.validateUpstream(key, r)
	}
	c.validateAuth(key, r)
	c.validateMethods(key+".methods", r.Methods)
	c.validateHeaders(key, r)
}

// validateAuth refuses keys that look as if they protected something that they
// do not.
func (c *Config) validateAuth(key string, r *Route) {
	if r.ForwardAuthorization && r.Auth != "none" {
		c.report(key+".forward_authorization", "is for routes with auth: none only", "remove it: elsewhere the session's token is the authorization")
	}
	if r.Auth != "none" {
		return
	}
	for _, name := range []string{"token", "csrf", "stream_keeps_alive", "end_with_session"} {
		if c.src.has(join(key, name)) {
			c.report(join(key, name), "has no effect with auth: none", "remove it, or change auth to optional or required")
		}
	}
}

// upstreamOnly are the keys that mean nothing for files.
var upstreamOnly = []string{"token", "headers", "forward_authorization", "preserve_host", "stream_keeps_alive", "end_with_session", "max_body", "timeout", "insecure_http", "tls"}

func (c *Config) validateStatic(key string, r *Route) {
	for _, name := range upstreamOnly {
		if path := join(key, name); c.src.has(path) && !(name == "token" && r.Auth == "none") {
			c.report(path, "has no effect on static files", "remove it")
		}
	}
	if r.Static == nil {
		return
	}
	if f := r.Static.Fallback; f != "" && checkPath("/"+f) != "" {
		c.report(key+".static.fallback", "is not the name of a file below dir", "write one such as index.html")
	}
}

func (c *Config) validateUpstream(key string, r *Route) {
	u := r.Upstream
	const fix = "write http(s)://host[:port][/base], h2c://host[:port][/base] or unix:///path"
	switch {
	case u.User != nil:
		c.report(key+".upstream", "holds a user name or password", "remove it; headers.set can carry a fixed credential")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		c.report(key+".upstream", "has a query or a fragment", fix)
	case u.Scheme == "unix":
		if u.Host != "" || u.Path == "" || u.Path[0] != '/' {
			c.report(key+".upstream", "does not name a socket by its absolute path", "write unix:///run/api.sock, with three slashes")
		}
		if c.Admin.Socket != "" && filepath.Clean(u.Path) == string(c.Admin.Socket) {
			c.report(key+".upstream", "is admin.socket", "name the API's socket: the admin socket is not for the public")
		}
	case u.Scheme != "https" && !isPlain(u):
		c.report(key+".upstream", "has a scheme that is not supported", fix)
	case u.Hostname() == "":
		c.report(key+".upstream", "has no host", fix)
	case isWildcard(u.Hostname()):
		c.report(key+".upstream", "has a wildcard host", "name one host")
	case !validPort(u.Port()):
		c.report(key+".upstream", "has a port that does not exist", "use 1 to 65535")
	case isPlain(u) && !r.InsecureHTTP && !isNear(u.Hostname()):
		c.report(key+".upstream", "would send access tokens over the network without TLS", "use https, or set insecure_http: true where the network itself is encrypted")
	}
	if r.Timeout == 0 {
		c.report(key+".timeout", "is zero", "upstreams need an end: write a duration such as 30s, or 1h for those that answer late")
	}
	c.validateUpstreamTLS(key+".tls", r)
}

func (c *Config) validateUpstreamTLS(key string, r *Route) {
	t := &r.TLS
	if r.Upstream.Scheme != "https" && (t.CA != "" || t.Cert != "" || t.Key != "" || t.InsecureSkipVerify) {
		c.report(key, "has no effect: the upstream is not https", "remove it, or use https")
		return
	}
	if t.CA != "" && t.InsecureSkipVerify {
		c.report(key+".insecure_skip_verify", "makes ca useless: any certificate would do", "remove it: with ca the upstream is verified")
	}
	t.Pool = c.pool(key+".ca", t.CA)
	t.Certificate = c.certificate(key, t.Cert, t.Key)
}

func isWildcard(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.Contains(host, "*") || err == nil && address.IsUnspecified()
}

// isNear tells hosts to which plain http is taken to be safe enough: this
// machine, private networks, and single-label names, which only resolve in one.
// Link-local addresses are not among them: cloud metadata lives there.
func isNear(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		address = address.Unmap()
		return address.IsLoopback() || address.IsPrivate()
	}
	return isLoopback(host) || !strings.Contains(strings.TrimSuffix(host, "."), ".")
}

func validPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

var pathCharacters = regexp.MustCompile(`^(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})*$`)

// encodedInVain matches encodings that a canonical path does not have: of
// unreserved characters, and those that requests may not have at all.
var encodedInVain = regexp.MustCompile(`%(?:2D|2E|2F|3[0-9]|4[1-9A-F]|5[0-9AF]|5C|6[1-9A-F]|7[0-9AEF]|[01].)`)

// checkPath says what is wrong with a path of the configuration. Requests are
// matched in canonical form (DESIGN.md, section 12), so a path in another form
// would never match.
func checkPath(path string) string {
	switch {
	case !strings.HasPrefix(path, "/"):
		return "does not begin with a slash"
	case strings.HasPrefix(path, "//"):
		return "begins with two slashes"
	case strings.ContainsAny(path, "*{}"):
		return "is a pattern, which routes do not have"
	case strings.ContainsAny(path, "?#"):
		return "has a query or a fragment"
	case !pathCharacters.MatchString(path) || encodedInVain.MatchString(path):
		return "has characters that must be percent-encoded, or that must not be"
	case hasDots(path):
		return "has a dot segment"
	}
	return ""
}

func hasDots(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(segment string) bool {
		segment, _, _ = strings.Cut(segment, ";")
		return segment == "." || segment == ".."
	})
}

// prefixOf tells whether prefix is made of whole segments of path.
func prefixOf(prefix, path string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/"))
}

var methodName = regexp.MustCompile(`^[A-Z][A-Z-]*$`)

func (c *Config) validateMethods(key string, methods []string) {
	for i, method := range methods {
		item := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case method == "TRACE" || method == "CONNECT":
			c.report(item, "is never forwarded", "remove it")
		case !methodName.MatchString(method):
			c.report(item, "is not a method", "write methods in capitals: GET")
		case slices.Index(methods, method) < i:
			c.report(item, "is listed twice", "remove one")
		}
	}
}

// isPlain tells upstreams that are reached without TLS: by HTTP/1.1, or by HTTP/2.
func isPlain(u *url.URL) bool { return u.Scheme == "http" || u.Scheme == "h2c" }

// isRemote tells upstreams that are reached in the clear, through DNS and more
// than one hop.
func isRemote(u *url.URL) bool { return u != nil && isPlain(u) && !isNear(u.Hostname()) }
