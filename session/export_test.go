package session

// CacheLen tells how many sessions are open in memory.
func CacheLen(m *Manager) int {
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	return len(m.cache.byKey)
}
