package session

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
)

// The names of the session cookie where the operator gives none. Over TLS the
// prefix makes browsers refuse the cookie unless it is Secure, HttpOnly, of this
// host and of path "/" (draft-ietf-httpbis-layered-cookies); one that does not
// know it still sees __Host- (RFC 10017, section 6.1.3.2; SES-05).
const (
	DefaultCookieName  = "__Host-Http-session"
	LoopbackCookieName = "sessiongate"
)

// CookieConfig is what an operator may say about the session cookie.
type CookieConfig struct {
	Name       string        // default: DefaultCookieName, LoopbackCookieName for an http origin
	SameSite   http.SameSite // Strict (also when 0) or Lax
	Persistent bool          // the browser keeps the cookie for the session's lifetime
}

// CookieName is the name of the session cookie.
func (a *App) CookieName() string { return a.cfg.Cookie.Name }

// Strict tells whether the session cookie is SameSite=Strict.
func (a *App) Strict() bool { return a.cfg.Cookie.SameSite == http.SameSiteStrictMode }

// Secure tells whether cookies are for https only: always but for a loopback
// http origin.
func (a *App) Secure() bool { return a.secure }

// OwnsCookie tells whether a cookie of this name is the gateway's: the session
// cookie or one made by Cookie. They never reach an upstream.
func (a *App) OwnsCookie(name string) bool {
	rest, ok := strings.CutPrefix(name, a.cfg.Cookie.Name)
	return ok && (rest == "" || rest[0] == '-')
}

// Cookie makes one of the gateway's short-lived cookies, named after the session
// cookie and the suffix. It is SameSite=Lax, as it has to come back from the
// provider. A negative maxAge deletes it: with the attributes it was set with,
// or a browser would not let a prefixed cookie go (LO-02).
func (a *App) Cookie(suffix, value string, maxAge time.Duration) *http.Cookie {
	c := a.cookie(a.cfg.Cookie.Name+"-"+suffix, value)
	c.SameSite = http.SameSiteLaxMode
	c.MaxAge = int(maxAge / time.Second)
	if maxAge < 0 {
		c.MaxAge = -1
	}
	return c
}

// ClearSession deletes the session cookie.
func (a *App) ClearSession() *http.Cookie {
	c := a.cookie(a.cfg.Cookie.Name, "")
	c.MaxAge = -1
	return c
}

func (a *App) cookie(name, value string) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/",
		Secure: a.secure, HttpOnly: true, SameSite: a.cfg.Cookie.SameSite,
	}
}

// sessionCookie signs the id. The age limit of securecookie is off: idle time
// and lifetime are the server's to say.
func (a *App) sessionCookie(id []byte, lifetime time.Duration) (*http.Cookie, error) {
	value, err := a.m.settings.Load().codecs[0].Encode(a.signedName, id)
	if err != nil {
		return nil, err
	}
	c := a.cookie(a.cfg.Cookie.Name, value)
	if a.cfg.Cookie.Persistent {
		c.MaxAge = int(lifetime / time.Second)
	}
	return c, nil
}

// openCookie returns the session id of a cookie value that one of our keys
// signed for this app's origin, else nil: junk never reaches the store.
func (a *App) openCookie(value string) []byte {
	if _, err := decodeOnly(base64.URLEncoding, value); err != nil {
		return nil
	}
	for _, codec := range a.m.settings.Load().codecs {
		var id []byte
		if codec.Decode(a.signedName, value, &id) == nil && len(id) == idBytes {
			return id
		}
	}
	return nil
}

func codecs(k *Keys) []*securecookie.SecureCookie {
	var all []*securecookie.SecureCookie
	for _, key := range k.derive("cookie") {
		all = append(all, securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(0))
	}
	return all
}

// FindCookie returns the value of the first cookie with exactly this name, and
// how many there are. It does not allocate. Names are compared by case, as
// servers must (draft-ietf-httpbis-layered-cookies; SES-06).
func FindCookie(h http.Header, name string) (value string, n int) {
	for _, line := range h["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			k, v, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if strings.TrimRight(k, " \t") != name {
				continue
			}
			if n++; n == 1 {
				value = strings.TrimLeft(v, " \t")
			}
		}
	}
	return value, n
}
