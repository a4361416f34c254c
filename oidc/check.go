package oidc

import (
	"context"
	"fmt"
	"slices"
)

// Check asks the provider for its metadata and its keys, as the first login would,
// and returns how many keys there are, and what the configuration asks for that
// the provider does not have.
func (c *Client) Check(ctx context.Context) (keys int, lacking []string, err error) {
	md, err := c.discover(ctx)
	if err != nil {
		return 0, nil, err
	}
	set, err := c.keys.get(ctx)
	if err != nil {
		return 0, nil, err
	}
	if method := c.authMethod(md); len(md.AuthMethods) > 0 && !slices.Contains(md.AuthMethods, method) {
		lacking = append(lacking, fmt.Sprintf("client_auth %s is none of its token_endpoint_auth_methods_supported", method))
	}
	if c.cfg.Logout.EndSession && md.EndSessionEndpoint == "" {
		lacking = append(lacking, "logout.end_session: it has no end_session_endpoint, and users stay logged in there")
	}
	if c.cfg.Logout.Revoke && md.RevocationEndpoint == "" {
		lacking = append(lacking, "logout.revoke: it has no revocation_endpoint, and refresh tokens stay good after a logout")
	}
	return len(set), lacking, nil
}
