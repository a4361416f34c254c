package oidc_test

import (
	"crypto"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sessiongate/session"
)

// Promise 3: new keys may come under an old key id, or under none. Until they can
// be fetched, a signature that the known ones did not make says nothing.
func TestRF11UnreachableKeysMakeNoSignatureWrong(t *testing.T) {
	for _, kid := range []string{"", "k1"} {
		t.Run("kid "+kid, func(t *testing.T) {
			p := newProvider(t)
			p.tell(func() { p.kid = kid; p.keys = map[string]crypto.Signer{kid: p.keys[firstKey(p.keys)]} })
			g := newGateway(t, p)
			former := p.freshIDToken(nil)
			if err := g.client.Confirm(t.Context(), former, former); err != nil {
				t.Fatal(err)
			}
			p.take("/keys", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
			p.tell(func() { p.keys = map[string]crypto.Signer{kid: otherKey()} })
			fresh := p.freshIDToken(nil)
			for range 2 { // the second time it is known that the keys cannot be fetched
				if err := g.client.Confirm(t.Context(), fresh, former); err == nil || errors.Is(err, session.ErrForeign) {
					t.Errorf("error = %v, want one that is not ErrForeign", err)
				}
			}
		})
	}
}

func firstKey(keys map[string]crypto.Signer) string {
	for kid := range keys {
		return kid
	}
	return ""
}

// Browsers drop a cookie of more than 4096 bytes without a word, and the login
// would end in an error page (DESIGN.md, section 7: a returnUrl has 1 KiB).
func TestTheLongestReturnURLFitsIntoTheFlowCookie(t *testing.T) {
	for _, char := range []string{"&", "<", `"`, "x"} {
		g := newGateway(t, newProvider(t))
		b := g.browser()
		long := "/?" + strings.Repeat(char, 1022)
		b.begin("?returnUrl=" + url.QueryEscape(long))
		for name, value := range b.cookies() {
			if n := len(name) + len(value); n > 4000 {
				t.Errorf("%s: a cookie of %d bytes", char, n)
			}
		}
	}
}
