package config

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

func (c *Config) validateApp(key string, app *App, origins map[string]string) {
	c.validateOrigin(key+".origin", app.Origin)
	if first, taken := origins[hostOf(app.Origin)]; taken {
		c.report(key+".origin", "has the same host as "+first, "give each app a host of its own")
	}
	origins[hostOf(app.Origin)] = key + ".origin"
	app.TLS.Certificate = c.certificate(key+".tls", app.TLS.Cert, app.TLS.Key)
	if !basePath.MatchString(app.BasePath) || hasDots(app.BasePath) {
		c.report(key+".base_path", "is not a path for the gateway's own endpoints", "write one such as /bff, without a slash at the end")
	}
	c.validateOIDC(key+".oidc", &app.OIDC, app.BasePath)
	paths := make(map[string]string)
	for i := range app.Routes {
		c.validateRoute(fmt.Sprintf("%s.routes[%d]", key, i), &app.Routes[i], app.BasePath, paths)
	}
	for i, origin := range app.CORS.Origins {
		c.validateOrigin(fmt.Sprintf("%s.cors.origins[%d]", key, i), origin)
	}
	c.validateSecurityHeaders(key+".security_headers", &app.SecurityHeaders)
}

var basePath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

// isBelow tells whether a path belongs to the gateway's own endpoints. A base
// path of a wrong shape is a problem of its own.
func isBelow(path, base string) bool {
	return basePath.MatchString(base) && (path == base || strings.HasPrefix(path, base+"/"))
}

func hostOf(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// validateOrigin wants an origin exactly as browsers write it, because it is
// compared with what they send.
func (c *Config) validateOrigin(key, origin string) {
	const fix = "write scheme://host or scheme://host:port and nothing else, as in https://shop.example.com"
	u, err := url.Parse(origin)
	switch {
	case origin == "*" || origin == "null" || strings.Contains(origin, "*"):
		c.report(key, "is a wildcard", "write each origin out")
	case err != nil || u.Host == "" || u.Opaque != "":
		c.report(key, "is not an origin", fix)
	case u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(origin, "?#"):
		c.report(key, "is more than an origin", fix+": no path, no slash at the end, no query, no user")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		c.report(key, "is not https", "use https; plain http is for loopback hosts such as http://localhost:8080")
	case !plainHost(u):
		c.report(key, "has a host that browsers write in another way", "write it in lower case, international names as xn--…, and the port only if it is not the usual one")
	}
}

// plainHost tells hosts in the one form that browsers use.
func plainHost(u *url.URL) bool {
	host, port := u.Hostname(), u.Port()
	usual := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	if host == "" || strings.HasSuffix(host, ".") || port == usual && port != "" || strings.HasSuffix(u.Host, ":") || !validPort(port) {
		return false
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return address.String() == host && address.Zone() == ""
	}
	return hostName.MatchString(host)
}

var hostName = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)

func (c *Config) validateOIDC(key string, o *OIDC, base string) {
	c.validateProviderURL(key+".issuer", o.Issuer)
	if o.DiscoveryURL != "" {
		c.validateProviderURL(key+".discovery_url", o.DiscoveryURL)
	}
	o.Pool = c.pool(key+".ca", o.CA)
	c.validateCredentials(key, o)
	c.validateScopes(key+".scopes", o.Scopes)
	for name := range o.AuthParams {
		c.validateParam(join(key+".auth_params", name), name)
	}
	for i, name := range o.LoginParams {
		path := fmt.Sprintf("%s.login_params[%d]", key, i)
		c.validateParam(path, name)
		if name == "resource" { // LOG-13
			c.report(path, "says what the token is for, which is not the browser's choice", "put it into auth_params")
		}
	}
	for i, audience := range o.Audiences {
		switch key := fmt.Sprintf("%s.audiences[%d]", key, i); audience {
		case "":
			c.report(key, "is empty", "name an audience, or remove the item")
		case o.ClientID:
			c.report(key, "is client_id, which an ID token has in any case", "remove it: only further audiences are listed")
		}
	}
	for i, name := range o.UserClaims {
		if name == "" {
			c.report(fmt.Sprintf("%s.user_claims[%d]", key, i), "is empty", "name a claim, or remove the item")
		}
	}
	if o.Timeout == 0 {
		c.report(key+".timeout", "is zero", "calls of the provider need an end: write a duration such as 10s")
	}
	after := o.Logout.After
	path, _, _ := strings.Cut(after, "?")
	if checkPath(path) != "" || !isFieldValue(after) || isBelow(path, base) {
		c.report(key+".logout.after", "is not a path of the app", "write one such as / or /goodbye, not below base_path")
	}
	for i, host := range o.Logout.Hosts {
		c.validateLogoutHost(fmt.Sprintf("%s.logout.hosts[%d]", key, i), host)
	}
}

// validateLogoutHost wants a host as the provider's Host header names it.
func (c *Config) validateLogoutHost(key, host string) {
	const fix = "write host or host:port and nothing else, as in gateway.internal:8080"
	name, port := splitHost(host)
	address, notIP := netip.ParseAddr(name)
	switch {
	case strings.Contains(host, "*"):
		c.report(key, "is a wildcard", "write each host out")
	case strings.ContainsAny(host, "/?#@"):
		c.report(key, "is more than a host", fix)
	case host != strings.ToLower(host):
		c.report(key, "is not in lower case", "write it in lower case")
	case strings.HasSuffix(host, ":") || !validPort(port):
		c.report(key, "has a port that does not exist", "use 1 to 65535, or leave it out for any")
	case notIP != nil && !hostName.MatchString(name), address.Zone() != "", strings.HasPrefix(host, "[") != address.Is6():
		c.report(key, "is not a host", fix)
	}
}

// splitHost splits "host" and "host:port"; the port of the first is "".
func splitHost(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]"), ""
	}
	return host, ""
}

// validateLogoutHosts refuses hosts at which it is not clear whose sessions a call
// is to end: two apps are told apart by host, or by base_path.
func (c *Config) validateLogoutHosts() {
	type place struct {
		app            int
		key, host, own string // own: of an app's origin
	}
	var all []place
	for i, app := range c.Apps {
		if u, err := url.Parse(app.Origin); err == nil && u.Host != "" {
			port := cmp.Or(u.Port(), map[string]string{"https": "443", "http": "80"}[u.Scheme])
			all = append(all, place{app: i, key: fmt.Sprintf("apps[%d].origin", i), own: net.JoinHostPort(u.Hostname(), port)})
		}
	}
	for i, app := range c.Apps {
		for j, host := range app.OIDC.Logout.Hosts {
			key := fmt.Sprintf("apps[%d].oidc.logout.hosts[%d]", i, j)
			for _, other := range all {
				switch {
				case other.app == i && other.host == host:
					c.report(key, "is listed twice", "remove one")
				case other.app == i:
				case other.own != "" && sameHost(host, other.own):
					c.report(key, "is the host of "+other.key, "use a name that is no app's")
				case other.own == "" && app.BasePath == c.Apps[other.app].BasePath && sameHost(host, other.host):
					c.report(key, "is "+other.key+" too, with the same base_path", "use another host, or give the apps different base_paths")
				}
			}
			all = append(all, place{app: i, key: key, host: host})
		}
	}
}

// sameHost tells whether a request could name both. A host without a port is
// named by any.
func sameHost(a, b string) bool {
	name, port := splitHost(a)
	name2, port2 := splitHost(b)
	return name == name2 && (port == "" || port2 == "" || port == port2)
}

// validateProviderURL checks an issuer, or the URL of its metadata (OpenID
// Connect Discovery 1.0, section 3; LOG-18).
func (c *Config) validateProviderURL(key, text string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		c.report(key, "is not a URL", "write it as the provider's metadata does, as in https://login.example.com")
	case u.User != nil:
		c.report(key, "holds a user name or password", "remove it")
	case strings.ContainsAny(text, "?#"):
		c.report(key, "has a query or a fragment", "remove it")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		c.report(key, "is not https", "use https; plain http is for a provider on loopback only")
	case !validPort(u.Port()):
		c.report(key, "has a port that does not exist", "use 1 to 65535")
	}
}

// validateCredentials wants exactly the credential that client_auth needs
// (LOG-02): the gateway is a confidential client.
func (c *Config) validateCredentials(key string, o *OIDC) {
	secret, private := o.ClientSecret != "", o.ClientKey != ""
	switch {
	case o.ClientAuth == "private_key_jwt" && !private:
		c.report(key+".client_key", "is required with client_auth private_key_jwt", "name the PEM file of the client's private key")
	case strings.HasPrefix(o.ClientAuth, "client_secret_") && !secret:
		c.report(key+".client_secret", "is required with client_auth "+o.ClientAuth, "set it, best from ${file:…} or ${NAME}")
	case !secret && !private:
		c.report(key+".client_secret", "is required: the gateway is a confidential client", "set it, best from ${file:…} or ${NAME}, or set client_key")
	case secret && private:
		c.report(key+".client_key", "is given together with client_secret", "keep the one that the provider registered")
	}
	if !private {
		return
	}
	if content, ok := c.read(key+".client_key", o.ClientKey); ok {
		var what string
		if o.Signer, what = parseSigner(content); what != "" {
			c.report(key+".client_key", what, "name a PEM file with one RSA, EC or Ed25519 private key, not encrypted")
		}
	}
}

// parseSigner reads a private key in any of the usual PEM forms.
func parseSigner(content []byte) (crypto.Signer, string) {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, ""
			}
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, ""
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, ""
		}
		return nil, "holds a private key that cannot be used"
	}
	return nil, "holds no private key"
}

// pool reads certificates of a private CA.
func (c *Config) pool(key string, file File) *x509.CertPool {
	if file == "" {
		return nil
	}
	pool := x509.NewCertPool()
	content, ok := c.read(key, file)
	if !ok {
		return pool
	}
	if what := addCertificates(pool, content); what != "" {
		c.report(key, what, "name a PEM file of the CA")
	}
	return pool
}

// addCertificates adds all of a PEM file. Unlike AppendCertsFromPEM it leaves none
// out silently: of a file that is half written, too, the rest is missed only by
// those who need it.
func addCertificates(pool *x509.CertPool, content []byte) (problem string) {
	n := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return "holds something that is no certificate"
		}
		pool.AddCert(certificate)
		n++
	}
	switch {
	case n == 0:
		return "holds no certificate"
	case n != bytes.Count(content, []byte("-----BEGIN ")):
		return "holds a certificate that cannot be read"
	}
	return ""
}

// scopeToken is RFC 6749, section 3.3.
var scopeToken = regexp.MustCompile(`^[!#-\[\]-~]+$`)

func (c *Config) validateScopes(key string, scopes []string) {
	openid := false
	for i, scope := range scopes {
		openid = openid || scope == "openid"
		if !scopeToken.MatchString(scope) {
			c.report(fmt.Sprintf("%s[%d]", key, i), "is not a scope", "write one scope for each item, without blanks")
		}
	}
	if !openid {
		c.report(key, "lacks openid", "add openid: without it the provider sends no ID token, and nobody can log in")
	}
}

// protocolParam matches what the gateway itself says in the authorization
// request, so that nobody can say otherwise (DESIGN.md, section 12).
var protocolParam = regexp.MustCompile(`^(?i:client_id|client_secret|client_assertion|client_assertion_type|redirect_uri|scope|state|nonce|response_type|response_mode|code_challenge.*|code_verifier|request.*|claims|returnUrl)$`)

var paramName = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

func (c *Config) validateParam(key, name string) {
	switch {
	case protocolParam.MatchString(name):
		c.report(key, "is a parameter that the gateway sets itself", "remove it")
	case !paramName.MatchString(name):
		c.report(key, "is not the name of a parameter", "use letters, digits, - and _")
	}
}

func (c *Config) validateSecurityHeaders(key string, s *SecurityHeaders) {
	if !isFieldValue(s.CSP) {
		c.report(key+".csp", "holds a line break or control character", "write it on one line; >- folds several into one")
	}
	if !isFieldValue(s.FrameAncestors) || strings.ContainsAny(s.FrameAncestors, ";,") {
		c.report(key+".frame_ancestors", "is not a source list", "write 'none', 'self', or origins separated by blanks")
	}
}
