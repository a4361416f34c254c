package zitadel

import (
	"crypto"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// client is the registration of the gateway. It implements [op.Client].
type client struct {
	id, secret string
	method     oidc.AuthMethod
	publicKey  crypto.PublicKey // of private_key_jwt
	origin     string
	tokenType  op.AccessTokenType
}

func (c *client) GetID() string          { return c.id }
func (c *client) RedirectURIs() []string { return []string{c.origin + "/bff/callback"} }
func (c *client) PostLogoutRedirectURIs() []string {
	return []string{c.origin + "/bff/logout/callback"}
}
func (c *client) ApplicationType() op.ApplicationType  { return op.ApplicationTypeWeb }
func (c *client) AuthMethod() oidc.AuthMethod          { return c.method }
func (c *client) LoginURL(id string) string            { return "/login?id=" + id }
func (c *client) AccessTokenType() op.AccessTokenType  { return c.tokenType }
func (c *client) IDTokenLifetime() time.Duration       { return time.Hour }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c *client) ClockSkew() time.Duration             { return 0 }
func (c *client) IsScopeAllowed(string) bool           { return false }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}

// DevMode allows redirect URIs on http.
func (c *client) DevMode() bool { return true }

// authRequest is a login under way, and later the login that refreshes go back to. It implements [op.AuthRequest] and
// [op.RefreshTokenRequest].
type authRequest struct {
	id      string
	request *oidc.AuthRequest
	subject string
	at      time.Time
	done    bool
}

func (a *authRequest) GetID() string                      { return a.id }
func (a *authRequest) GetACR() string                     { return "" }
func (a *authRequest) GetAMR() []string                   { return []string{"pwd"} }
func (a *authRequest) GetAudience() []string              { return []string{a.request.ClientID} }
func (a *authRequest) GetAuthTime() time.Time             { return a.at }
func (a *authRequest) GetClientID() string                { return a.request.ClientID }
func (a *authRequest) GetNonce() string                   { return a.request.Nonce }
func (a *authRequest) GetRedirectURI() string             { return a.request.RedirectURI }
func (a *authRequest) GetResponseType() oidc.ResponseType { return a.request.ResponseType }
func (a *authRequest) GetResponseMode() oidc.ResponseMode { return a.request.ResponseMode }
func (a *authRequest) GetScopes() []string                { return a.request.Scopes }
func (a *authRequest) GetState() string                   { return a.request.State }
func (a *authRequest) GetSubject() string                 { return a.subject }
func (a *authRequest) Done() bool                         { return a.done }

func (a *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: a.request.CodeChallenge, Method: a.request.CodeChallengeMethod}
}

// refreshRequest is a login as a refresh sees it: no AuthRequest, for an ID token of a refresh carries no nonce.
type refreshRequest struct{ login *authRequest }

func (r *refreshRequest) GetAMR() []string          { return r.login.GetAMR() }
func (r *refreshRequest) GetAudience() []string     { return r.login.GetAudience() }
func (r *refreshRequest) GetAuthTime() time.Time    { return r.login.GetAuthTime() }
func (r *refreshRequest) GetClientID() string       { return r.login.GetClientID() }
func (r *refreshRequest) GetScopes() []string       { return r.login.GetScopes() }
func (r *refreshRequest) GetSubject() string        { return r.login.GetSubject() }
func (r *refreshRequest) SetCurrentScopes([]string) {}
