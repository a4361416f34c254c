package session

// CacheLen tells how many sessions are open in memory.
func CacheLen(m *Manager) int {
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	return len(m.cache.byKey)
}

// Openings tells how many sessions are being opened.
func Openings(m *Manager) int {
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	return len(m.cache.fills)
}

// Cookie is the value of a session's cookie.
func Cookie(s *Session) string { return s.cookie }

// Cached tells whether this very session is open in memory for requests.
func Cached(s *Session) bool { return s.app.m.cache.holds(s) }

// Watched tells how many sessions are watched.
func Watched(m *Manager) int {
	m.watches.mu.Lock()
	defer m.watches.mu.Unlock()
	return len(m.watches.of)
}
