package config

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sessiongate/session"
)

// complete fills in the defaults that depend on other keys.
func (c *Config) complete() {
	if c.Session.Store.Redis != nil {
		c.Session.Store.Bbolt.Path = ""
	}
	for i := range c.Apps {
		for j := range c.Apps[i].Routes {
			r := &c.Apps[i].Routes[j]
			switch {
			case r.Auth == "none":
				continue
			case r.CSRF == "" && r.Kind == "page":
				r.CSRF = "origin"
			case r.CSRF == "":
				r.CSRF = "header"
			}
			if r.Token == "" {
				r.Token = "access"
			}
		}
	}
}

// report notes a problem, unless one about the same key is known already.
func (c *Config) report(key, what, fix string) {
	if !c.src.problems.about(key) && !c.src.meant[key] {
		c.src.report(key, what, fix)
	}
}

// validate refuses what would be unsafe or cannot work (OP-01).
func (c *Config) validate() {
	c.validateListener("listen", c.Listen)
	c.validateListener("admin.listen", c.Admin.Listen)
	if c.Listen == c.Admin.Listen && !strings.HasSuffix(c.Listen, ":0") {
		c.report("admin.listen", "is the public listener", "use another port: health and metrics are not for the public")
	}
	c.validateAdmin()
	if c.Limits.HeaderBytes < 4096 {
		c.report("limits.header_bytes", "is too small for ordinary requests", "allow 4096 or more")
	}
	if n := c.Limits.H2Streams; n == 0 || n > maxH2Streams {
		c.report("limits.h2_streams", fmt.Sprintf("is not a number from 1 to %d", maxH2Streams), "write how many requests one HTTP/2 connection may have under way, such as 100")
	}
	if c.Limits.SessionsInMemory < leastSessions {
		c.report("limits.sessions_in_memory", fmt.Sprintf("is less than %d", leastSessions), "write how many sessions may be open in memory, at some 3 KB each, such as 50000")
	}
	c.TLS.Certificate = c.certificate("tls", c.TLS.Cert, c.TLS.Key)
	c.validateSession()
	origins := make(map[string]string)
	for i := range c.Apps {
		c.validateApp(fmt.Sprintf("apps[%d]", i), &c.Apps[i], origins)
	}
	c.validateServerTLS()
	c.validateLogoutHosts()
}

// maxH2Streams is what a browser can be told (RFC 9113, section 6.5.2): the field
// has 32 bits, and stream ids have 31.
const maxH2Streams = 1<<31 - 1

// leastSessions is one for each part of a manager's memory of sessions.
const leastSessions = 64

// bearerToken is RFC 6750, section 2.1.
var bearerToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// minTokenLength is that of 24 random bytes in base64, and of 16 in hex: nobody
// guesses them, so that the listener need not slow anybody down.
const minTokenLength = 32

func (c *Config) validateAdmin() {
	const fix = "make one with: sessiongate keygen"
	token := c.Admin.Token.Reveal()
	switch {
	case token == "":
	case !bearerToken.MatchString(token):
		c.report("admin.token", "has characters that a bearer token cannot have", fix)
	case len(token) < minTokenLength:
		c.report("admin.token", fmt.Sprintf("has %d characters, and needs %d or more: it opens everybody's session to its end", len(token), minTokenLength), fix)
	case isRepetitive(token):
		c.report("admin.token", "is a weak token: it repeats a few characters", fix)
	case slices.Contains(c.Session.Keys, c.Admin.Token):
		c.report("admin.token", "is one of session.keys", "make another one with: sessiongate keygen")
	}
	switch socket := c.Admin.Socket; {
	case len(socket) > maxSocketPath:
		c.report("admin.socket", fmt.Sprintf("is too long: the system allows %d bytes for the absolute path of a socket", maxSocketPath), "name one in a directory near the root, such as /run/sessiongate/admin.sock")
	case socket != "" && socket == c.Session.Store.Bbolt.Path:
		c.report("admin.socket", "is the path of the store", "name another one")
	}
}

// maxSocketPath leaves room for the NUL at the end (unix(7)).
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// isRepetitive is the measure of session.DecodeKey.
func isRepetitive(token string) bool {
	different := make(map[rune]bool)
	for _, r := range token {
		different[r] = true
	}
	return len(different) < 8
}

func (c *Config) validateListener(key, address string) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.report(key, "is not an address to listen on", `write host:port or :port, in quotes: ":8080"`)
	}
}

func (c *Config) validateSession() {
	s := &c.Session
	if s.IdleTimeout == 0 {
		c.report("session.idle_timeout", "is zero", "sessions need an end: write a duration such as 30m")
	}
	if s.Lifetime == 0 {
		c.report("session.lifetime", "is zero", "sessions need an end: write a duration such as 12h")
	}
	c.validateStore()
	c.validateKeys()
	c.validateCookie()
}

func (c *Config) validateKeys() {
	if len(c.Session.Keys) == 0 {
		c.report("session.keys", "holds no key", "make one with: sessiongate keygen")
	}
	var known [][]byte
	for i, secret := range c.Session.Keys {
		key := fmt.Sprintf("session.keys[%d]", i)
		decoded, err := session.DecodeKey(string(secret))
		if err != nil {
			c.report(key, err.Error(), "make one with: sessiongate keygen")
			continue
		}
		for j, other := range known {
			if bytes.Equal(decoded, other) {
				c.report(key, fmt.Sprintf("is the same key as session.keys[%d]", j), "remove one")
			}
		}
		known = append(known, decoded)
	}
}

var cookieName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")

func (c *Config) validateCookie() {
	const key = "session.cookie.name"
	name := c.Session.Cookie.Name
	if name == "" {
		return
	}
	if !cookieName.MatchString(name) {
		c.report(key, "is not a name for a cookie", "use letters, digits, - and _, at most 64")
		return
	}
	prefixed := strings.HasPrefix(name, "__Host-")
	for _, app := range c.Apps {
		switch secure := strings.HasPrefix(app.Origin, "https:"); {
		case secure && !prefixed:
			c.report(key, "does not begin with __Host-", "begin it so, or leave it out: without the prefix a sibling domain can plant the cookie")
		case !secure && strings.HasPrefix(name, "__"):
			c.report(key, "has a prefix that browsers refuse for an http origin", "leave it out: http origins get a name of their own")
		}
	}
}

// certificate reads a certificate with its key.
func (c *Config) certificate(key string, cert, private File) *tls.Certificate {
	switch {
	case cert == "" && private == "":
		return nil
	case private == "":
		c.report(key+".key", "is missing", "name the PEM file of the certificate's key")
		return nil
	case cert == "":
		c.report(key+".cert", "is missing", "name the PEM file of the key's certificate")
		return nil
	}
	certPEM, ok := c.read(key+".cert", cert)
	keyPEM, ok2 := c.read(key+".key", private)
	if !ok || !ok2 {
		return nil
	}
	// The error of X509KeyPair describes PEM blocks and never quotes them.
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		c.report(key+".cert", "does not work with its key: "+strings.TrimPrefix(err.Error(), "tls: "), "name PEM files that belong together, the certificate's chain in order")
		return nil
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		c.report(key+".cert", "expired at "+pair.Leaf.NotAfter.UTC().Format(time.RFC3339), "renew it")
	}
	return &pair
}

// read returns a file's content and reports one that cannot be read.
func (c *Config) read(key string, file File) ([]byte, bool) {
	content, err := readSmall(string(file))
	if err != nil {
		c.report(key, reason(err, string(file)), "name a file that the gateway's user can read")
	}
	return content, err == nil
}

// validateServerTLS finds apps that could not be reached for want of a
// certificate: with one certificate the public listener speaks TLS only.
func (c *Config) validateServerTLS() {
	common, speaks := c.TLS.Cert != "", c.SpeaksTLS()
	c.validateRedirect(speaks)
	for i, app := range c.Apps {
		key := fmt.Sprintf("apps[%d].origin", i)
		switch {
		case !speaks:
		case strings.HasPrefix(app.Origin, "http:"):
			c.report(key, "is http, but the listener speaks TLS", "make it https, or remove the certificates")
		case !common && app.TLS.Cert == "":
			c.report(key, "has no certificate, but the listener speaks TLS for other apps", fmt.Sprintf("set apps[%d].tls or tls", i))
		}
	}
}

// validateRedirect is about the listener for those who come without TLS.
func (c *Config) validateRedirect(speaks bool) {
	const key = "tls.redirect"
	address := c.TLS.Redirect
	if address == "" {
		return
	}
	c.validateListener(key, address)
	switch {
	case !speaks:
		c.report(key, "has no effect: the gateway speaks no TLS", "remove it, and let what speaks TLS in front of the gateway redirect")
	case (address == c.Listen || address == c.Admin.Listen) && !strings.HasSuffix(address, ":0"):
		c.report(key, "is the address of another listener", "use another port: browsers come to :80 without TLS")
	}
}

// SpeaksTLS tells whether the public listener does.
func (c *Config) SpeaksTLS() bool {
	speaks := c.TLS.Cert != ""
	for _, app := range c.Apps {
		speaks = speaks || app.TLS.Cert != ""
	}
	return speaks
}

// isLoopback tells hosts that never leave the machine.
func isLoopback(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return address.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
