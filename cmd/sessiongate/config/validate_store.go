package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

func (c *Config) validateStore() {
	s := &c.Session.Store
	switch {
	case s.Redis == nil && s.Bbolt.Path == "":
		c.report("session.store.bbolt.path", "is empty", "name a file")
	case s.Redis != nil && c.src.has("session.store.bbolt"):
		c.report("session.store.bbolt", "stands beside redis", "keep one: sessions are in one store")
	}
	if s.Redis != nil {
		c.validateRedis("session.store.redis", s.Redis)
	}
}

// maxPrefix bounds what each key in a Redis begins with.
const maxPrefix = 100

func (c *Config) validateRedis(key string, r *Redis) {
	c.validateAddresses(key, r)
	c.validateSentinel(key+".sentinel", r)
	c.validateLogin(key, r.Username, r.Password)
	if r.Cluster && r.DB != 0 {
		c.report(key+".db", "is not 0, the only database of a Cluster", "remove it, and set prefix where several gateways share a Cluster")
	}
	if r.TLS != nil {
		r.TLS.Pool = c.pool(key+".tls.ca", r.TLS.CA)
		if r.InsecurePlaintext {
			c.report(key+".insecure_plaintext", "has no effect beside tls", "remove it")
		}
	}
	// A brace would begin the hash tag of a Cluster.
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '{' || r == '}' }
	if r.Prefix == "" || len(r.Prefix) > maxPrefix || strings.ContainsFunc(r.Prefix, odd) {
		c.report(key+".prefix", "is not a beginning for keys", fmt.Sprintf("write 1 to %d printable ASCII characters, no space, no brace, such as sessiongate:", maxPrefix))
	}
	if r.Liveness == 0 {
		c.report(key+".liveness", "is zero", "write a duration such as 1s")
	}
}

func (c *Config) validateAddresses(key string, r *Redis) {
	for i, address := range r.Addresses {
		key := fmt.Sprintf("%s.addresses[%d]", key, i)
		host, port, err := net.SplitHostPort(address)
		if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n == 0 || host == "" || strings.ContainsAny(host, "@/ ") {
			c.report(key, "is not host:port", "write such as redis.internal:6379, without redis:// and password")
			continue
		}
		if r.TLS == nil && !r.InsecurePlaintext && !staysHere(host) {
			c.report(key, "would send passwords and sessions over the network without TLS", "set tls, or insecure_plaintext: true where the network itself is encrypted")
		}
	}
	if len(r.Addresses) == 0 {
		c.report(key+".addresses", "holds no address", `write such as ["redis.internal:6379"]`)
	}
	if len(r.Addresses) > 1 && !r.Cluster && r.Sentinel.Master == "" {
		c.report(key+".addresses", "are several, of neither a Cluster nor Sentinels", "keep one, or set cluster: true or sentinel.master")
	}
}

// staysHere is what the store itself takes for a loopback address.
func staysHere(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (c *Config) validateSentinel(key string, r *Redis) {
	s := &r.Sentinel
	c.validateLogin(key, s.Username, s.Password)
	switch {
	case s.Master != "" && r.Cluster:
		c.report(key+".master", "stands beside cluster: true", "keep one: a Cluster has no Sentinels")
	case s.Master == "" && s.Username+s.Password != "":
		c.report(key+".master", "is missing", "name the master set that the Sentinels watch, such as mymaster")
	}
}

func (c *Config) validateLogin(key string, username, password Secret) {
	if username != "" && password == "" {
		c.report(key+".password", "is missing, though there is a username", `write the user's password, such as "${file:/run/secrets/redis_password}"`)
	}
}
