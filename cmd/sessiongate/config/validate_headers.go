package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop fields belong to one connection (RFC 9110, section 7.6.1).
var hopByHop = []string{
	"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
	"te", "trailer", "transfer-encoding", "upgrade", "content-length",
}

// What the gateway says itself, by name in lower case, and what to do instead.
var (
	ownRequestHeaders = map[string]string{
		"host":          "use preserve_host, or the upstream's host",
		"authorization": "use token: access, or auth: none with forward_authorization",
		"cookie":        "", "x-csrf": "", "forwarded": "", "x-forwarded-for": "", "x-forwarded-host": "", "x-forwarded-proto": "",
		"x-forwarded-port": "", "x-forwarded-prefix": "", "x-real-ip": "", "via": "", "x-request-id": "", "traceparent": "", "tracestate": "", "baggage": "", "dpop": "",
	}
	ownResponseHeaders = map[string]string{
		"strict-transport-security": "use security_headers.hsts",
		"set-cookie":                "", "x-sessiongate": "", "clear-site-data": "", "service-worker-allowed": "", "via": "", "x-request-id": "",
	}
)

func (c *Config) validateHeaders(key string, r *Route) {
	set := make(map[string]string, len(r.Headers.Set))
	for name, value := range r.Headers.Set {
		set[name] = value.Reveal()
	}
	c.validateSet(key+".headers.set", set, ownRequestHeaders)
	c.validateSet(key+".response_headers.set", r.ResponseHeaders.Set, ownResponseHeaders)
	c.validateRemove(key+".headers.remove", r.Headers.Remove, []string{"host", "authorization"})
	c.validateRemove(key+".response_headers.remove", r.ResponseHeaders.Remove, []string{"x-sessiongate"})
}

func (c *Config) validateSet(key string, set map[string]string, own map[string]string) {
	spellings := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		path, plain := join(key, name), plainHeader(name)
		if first, taken := spellings[plain]; taken {
			c.report(path, "is "+first+" in another spelling", "remove one")
		}
		spellings[plain] = name
		instead, ours := own[plain]
		switch {
		case slices.Contains(hopByHop, plain):
			c.report(path, "is a header of the connection, which proxies handle", "remove it")
		case ours || strings.HasPrefix(plain, "access-control-"):
			if instead == "" {
				instead = "remove it"
			}
			c.report(path, "is a header that the gateway sets itself", instead)
		case !httpguts.ValidHeaderFieldName(name):
			c.report(path, "is not the name of a header", "use letters, digits and -")
		case !isFieldValue(set[name]):
			c.report(path, "has a value with a line break or control character", "write it on one line")
		}
	}
}

func (c *Config) validateRemove(key string, names, kept []string) {
	for i, name := range names {
		path, plain := fmt.Sprintf("%s[%d]", key, i), plainHeader(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			c.report(path, "is not the name of a header", "use letters, digits and -")
		case slices.Contains(hopByHop, plain) || slices.Contains(kept, plain):
			c.report(path, "is a header that cannot be removed", "remove it from this list")
		}
	}
}

// plainHeader maps all spellings that upstreams take for one header to one:
// CGI and its heirs turn - and . into _.
func plainHeader(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

func isFieldValue(value string) bool { return httpguts.ValidHeaderFieldValue(value) }
