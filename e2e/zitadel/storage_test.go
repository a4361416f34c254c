package zitadel

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	subject   = "ada"
	accessTTL = 3 * time.Second
)

// storage keeps the provider's state in memory. Refresh tokens rotate at every use, and the reuse of one revokes its
// login's whole family. It implements [op.Storage].
type storage struct {
	key     *rsa.PrivateKey
	clients map[string]*client

	mu         sync.Mutex // guards the rest
	requests   map[string]*authRequest
	codes      map[string]*authRequest
	families   map[string]*family // by refresh token, spent ones too
	expiries   map[string]time.Time
	refreshes  int
	reuses     int
	revoked    []string // refresh tokens
	terminated []string // subjects of RP-initiated logouts
}

// family is all refresh tokens of one login. Only the current one is good.
type family struct {
	login   *authRequest
	current string
	revoked bool
}

func newStorage(clients ...*client) (*storage, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	s := &storage{
		key:      key,
		clients:  map[string]*client{},
		requests: map[string]*authRequest{},
		codes:    map[string]*authRequest{},
		families: map[string]*family{},
		expiries: map[string]time.Time{},
	}
	for _, c := range clients {
		s.clients[c.id] = c
	}
	return s, nil
}

// logIn is what the login page does when somebody gives the right password.
func (s *storage) logIn(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.requests[id]
	if a == nil {
		return errors.New("unknown authorization request")
	}
	a.subject, a.at, a.done = subject, time.Now().Truncate(time.Second), true
	return nil
}

func (s *storage) CreateAuthRequest(_ context.Context, request *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &authRequest{id: rand.Text(), request: request}
	s.requests[a.id] = a
	return a, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	return s.find(s.requests, id)
}

func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	return s.find(s.codes, code)
}

func (s *storage) find(in map[string]*authRequest, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := in[id]; a != nil {
		return a, nil
	}
	return nil, errors.New("no such authorization request")
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = s.requests[id]
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	for code, a := range s.codes {
		if a.id == id {
			delete(s.codes, code)
		}
	}
	return nil
}

func (s *storage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, expiry := s.access()
	return id, expiry, nil
}

// access makes an access token. The caller holds mu.
func (s *storage) access() (string, time.Time) {
	id, expiry := rand.Text(), time.Now().Add(accessTTL)
	s.expiries[id] = expiry
	return id, expiry
}

func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, request op.TokenRequest, spent string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.families[spent]
	if spent == "" {
		f = &family{login: request.(*authRequest)}
	} else if f == nil || f.current != spent {
		// Two refreshes with one token that both came past TokenRequestByRefreshToken.
		s.reuses++
		return "", "", time.Time{}, oidc.ErrInvalidGrant()
	} else {
		s.refreshes++
	}
	f.current = rand.Text()
	s.families[f.current] = f
	id, expiry := s.access()
	return id, f.current, expiry, nil
}

func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.families[token]
	switch {
	case f == nil:
		return nil, errors.New("unknown refresh token")
	case f.revoked:
		return nil, errors.New("revoked refresh token")
	case f.current != token:
		s.reuses++
		f.revoked = true
		return nil, errors.New("refresh token reused")
	}
	return &refreshRequest{f.login}, nil
}

func (s *storage) TerminateSession(_ context.Context, userID, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.terminated = append(s.terminated, userID)
	return nil
}

func (s *storage) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.families[token]; f != nil {
		f.revoked = true
		s.revoked = append(s.revoked, token)
	}
	delete(s.expiries, token)
	return nil
}

func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.families[token]
	if f == nil {
		return "", "", op.ErrInvalidRefreshToken
	}
	return f.login.subject, token, nil
}

// SetUserinfoFromToken is asked by the userinfo endpoint, which the tests' API uses to judge access tokens.
func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, sub, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(s.expiries[id]) {
		return errors.New("token expired or unknown")
	}
	info.Subject = sub
	return nil
}

// SetUserinfoFromScopes fills in the claims of ID tokens.
func (s *storage) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, sub, _ string, _ []string) error {
	info.Subject = sub
	info.Name = "Ada Lovelace"
	return nil
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errors.New("no introspection")
}

func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("no JWT profile")
}

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if c := s.clients[id]; c != nil {
		return c, nil
	}
	return nil, errors.New("no such client")
}

func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	c := s.clients[id]
	if c == nil || c.secret == "" || subtle.ConstantTimeCompare([]byte(c.secret), []byte(secret)) != 1 {
		return errors.New("unknown client or wrong secret")
	}
	return nil
}

// GetKeyByIDAndClientID returns the key that a client signs its assertions with. Each has but one, whatever it calls it.
func (s *storage) GetKeyByIDAndClientID(_ context.Context, _, id string) (*jose.JSONWebKey, error) {
	c := s.clients[id]
	if c == nil || c.publicKey == nil {
		return nil, errors.New("no such key")
	}
	return &jose.JSONWebKey{Key: c.publicKey}, nil
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return signingKey{s.key}, nil }

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{publicKey{&s.key.PublicKey}}, nil
}

func (s *storage) Health(context.Context) error { return nil }

type signingKey struct{ key *rsa.PrivateKey }

func (k signingKey) ID() string                                  { return "only" }
func (k signingKey) Key() any                                    { return k.key }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }

type publicKey struct{ key *rsa.PublicKey }

func (k publicKey) ID() string                         { return "only" }
func (k publicKey) Key() any                           { return k.key }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
