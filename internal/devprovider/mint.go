package devprovider

import (
	"cmp"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

type signingKey struct {
	id      string
	private *rsa.PrivateKey
}

func newKey(private *rsa.PrivateKey) (signingKey, error) {
	if private == nil {
		var err error
		if private, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return signingKey{}, fmt.Errorf("devprovider: generate a signing key: %w", err)
		}
	}
	return signingKey{id: rand.Text()[:8], private: private}, nil
}

// RotateKey makes a new key that signs from now on. The former keys stay
// published until ForgetOldKeys.
func (p *Provider) RotateKey() error {
	key, err := newKey(nil)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append([]signingKey{key}, p.keys...)
	return nil
}

// ForgetOldKeys removes all keys but the one that signs.
func (p *Provider) ForgetOldKeys() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = p.keys[:1:1]
}

func (p *Provider) signingKeys() []signingKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.keys)
}

func (p *Provider) jwks(*exchange) answer {
	var public []jose.JSONWebKey
	for _, k := range p.signingKeys() {
		public = append(public, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: "RS256", Use: "sig"})
	}
	return answer{json: map[string]any{"keys": public}}
}

// mint makes the answer to a token request: access token, ID token and, if there
// is one, the refresh token. The nonce belongs to the code's redemption only
// (OpenID Connect Core, 12.2).
func (p *Provider) mint(g *grant, refresh, nonce string, f *Fault) (map[string]any, error) {
	now := p.cfg.Now()
	access, err := p.accessToken(g, now)
	if err != nil {
		return nil, err
	}
	id, err := p.idToken(g, access, nonce, now, f)
	if err != nil {
		return nil, err
	}
	body := map[string]any{
		"access_token": access,
		"token_type":   "Bearer",
		"expires_in":   int(p.cfg.AccessTokenTTL / time.Second),
		"id_token":     id,
		"scope":        strings.Join(g.scope, " "),
	}
	minted := []Minted{{"access", access, g.id, g.user.Sub, g.sid}, {"id", id, g.id, g.user.Sub, g.sid}}
	if refresh != "" {
		body["refresh_token"] = refresh
		minted = append(minted, Minted{"refresh", refresh, g.id, g.user.Sub, g.sid})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens = append(p.tokens, minted...)
	return body, nil
}

// accessToken makes a JWT by RFC 9068. Its claim generation is ours: 0 at the
// login, and one more at each refresh.
func (p *Provider) accessToken(g *grant, now time.Time) (string, error) {
	id := rand.Text()
	p.mu.Lock()
	p.accesses[id] = g
	generation := g.minted
	g.minted++
	p.mu.Unlock()
	return p.mintJWT("at+jwt", map[string]any{
		"iss":       p.cfg.Issuer,
		"sub":       g.user.Sub,
		"aud":       p.cfg.Audience,
		"client_id": g.client.ID,
		"scope":     strings.Join(g.scope, " "),
		"sid":       g.sid,
		"auth_time": g.authTime.Unix(),
		"iat":       now.Unix(),
		"exp":       now.Add(p.cfg.AccessTokenTTL).Unix(),
		"jti":       id,

		"generation": generation,
	}, &Fault{})
}

// idToken makes an ID token by OpenID Connect Core, 2, and spoils it as told.
func (p *Provider) idToken(g *grant, access, nonce string, now time.Time, f *Fault) (string, error) {
	half := sha256.Sum256([]byte(access))
	claims := userClaims(g)
	maps.Copy(claims, map[string]any{
		"iss":       p.cfg.Issuer,
		"aud":       g.client.ID,
		"sid":       g.sid,
		"auth_time": g.authTime.Unix(),
		"iat":       now.Unix(),
		"exp":       now.Add(p.cfg.IDTokenTTL).Unix(),
		"at_hash":   base64.RawURLEncoding.EncodeToString(half[:16]),
	})
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return p.mintJWT("JWT", claims, f)
}

// userClaims is what scope lets the client know of the user.
func userClaims(g *grant) map[string]any {
	claims := maps.Clone(g.user.Claims)
	if claims == nil {
		claims = map[string]any{}
	}
	claims["sub"] = g.user.Sub
	if slices.Contains(g.scope, "profile") {
		claims["name"] = g.user.Name
	}
	if slices.Contains(g.scope, "email") && g.user.Email != "" {
		claims["email"] = g.user.Email
		claims["email_verified"] = true
	}
	return claims
}

// mintJWT makes a JWT of the given type, and spoils it as told.
func (p *Provider) mintJWT(typ string, claims map[string]any, f *Fault) (string, error) {
	key := p.signingKeys()[0]
	alg := cmp.Or(f.Alg, "RS256")
	header := map[string]any{"alg": alg, "kid": key.id, "typ": cmp.Or(f.Typ, typ)}
	if f.Claims != nil {
		f.Claims(claims)
	}
	if f.Header != nil {
		f.Header(header)
	}
	signed, err := encode(header, claims)
	if err != nil {
		return "", fmt.Errorf("devprovider: encode a token: %w", err)
	}
	signature, err := key.sign(alg, signed)
	if err != nil {
		return "", err
	}
	token := signed + "." + base64.RawURLEncoding.EncodeToString(signature)
	if f.BadSignature {
		token = spoil(token)
	}
	return token, nil
}

// encode makes what a JWS signs (RFC 7515, 5.1).
func encode(header, claims map[string]any) (string, error) {
	var parts [2]string
	for i, part := range []map[string]any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(text)
	}
	return parts[0] + "." + parts[1], nil
}

// sign signs by RS256, or by one of the two algorithms that fool careless
// verifiers (RFC 8725, 2.1).
func (k signingKey) sign(alg, text string) ([]byte, error) {
	switch alg {
	case "RS256":
		sum := sha256.Sum256([]byte(text))
		return rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, sum[:])
	case "HS256":
		mac := hmac.New(sha256.New, x509.MarshalPKCS1PublicKey(&k.private.PublicKey))
		mac.Write([]byte(text))
		return mac.Sum(nil), nil
	case "none":
		return nil, nil
	}
	return nil, fmt.Errorf("devprovider: fault with unknown algorithm %q", alg)
}

// spoil changes the first character of a token's signature.
func spoil(token string) string {
	i := strings.LastIndexByte(token, '.') + 1
	other := "A"
	if strings.HasPrefix(token[i:], other) {
		other = "B"
	}
	return token[:i] + other + token[i+1:]
}

// own reads a token that this provider signed. It does not look at exp: an
// id_token_hint may have expired.
func (p *Provider) own(token string, claims any) error {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return err
	}
	for _, k := range p.signingKeys() {
		if k.id == parsed.Headers[0].KeyID {
			return parsed.Claims(k.private.Public(), claims)
		}
	}
	return errors.New("signed by no key of ours")
}
