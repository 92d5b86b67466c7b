// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"unsafe"
)

// GetCertificate chooses the certificate for a handshake, as the package
// documentation says under "Which certificate". It is made for
// [tls.Config.GetCertificate].
//
// If several cover the name and the client supports none of them, the one it would
// have been otherwise is returned, as crypto/tls does. If nothing fits, the error is
// an [*UnknownNameError]; certificate and error are never both nil.
//
// A client that asks by [ACMETLS1] gets the answer to a challenge, or an error: see
// [Store.SetChallenges].
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if asksChallenge(hello) {
		return s.answer(hello)
	}
	conn, tracked := hello.Conn.(*conn)
	for {
		var g *generation
		var slot *slot
		if hello.ServerName != "" {
			slot = s.lookupName(hello.ServerName)
		} else {
			slot = s.lookupAddr(localAddr(hello.Conn))
		}
		if slot != nil {
			if cert := slot.sole.Load(); cert != nil && !tracked {
				return cert, nil
			}
			set := slot.set.Load()
			if set == nil {
				continue // removed just now
			}
			g = set.pick(hello)
		} else if g = s.fallback.Load(); g == nil {
			return nil, s.refuseUnknown(hello)
		}
		if g.lazy == nil {
			// Drain, which comes after a change, is to find what is used, or else the
			// change is to be found here: so it is noted, then chosen again.
			if tracked && !conn.use(s, g) {
				continue
			}
			return g.cert, nil
		}
		s.open(g) // after this, g is in no set any more
	}
}

// lookupName returns the slot of what fits a server name as a client sent it, or nil. It
// is as flat as it is because calls are what a choice otherwise consists of.
func (s *Store) lookupName(name string) *slot {
	if len(name) > maxName+1 {
		return nil
	}
	if name[0] > '.' { // see the keys of Store.names
		if slot := s.names.find(name); slot.leads() {
			return slot
		}
		if slot := s.lookupWildcard(name); slot != nil {
			return slot
		}
	}
	// The rest is for peers that send what RFC 6066, section 3, does not allow, or
	// upper case.
	if name[len(name)-1] == '.' || hasUpper(name) {
		return s.lookupFolded(name)
	}
	if name[0] <= 'f' { // as addresses begin
		if ip, ok := literalAddr(name); ok {
			return s.lookupAddr(ip)
		}
	}
	return nil
}

// lookupWildcard returns what fits a name in lower case by the wildcard in place of its
// first label, and only of that (RFC 9525, section 6.3).
func (s *Store) lookupWildcard(name string) *slot {
	dot := strings.IndexByte(name, '.')
	if dot < 0 {
		return nil
	}
	if slot := s.names.find(name[dot:]); slot.leads() && isLabel(name[:dot]) {
		return slot
	}
	return nil
}

// lookupFolded returns what fits a name of at most maxName+1 bytes that may be in upper
// case or end in a dot.
func (s *Store) lookupFolded(name string) *slot {
	var buf [maxName + 1]byte
	name = strings.TrimSuffix(name, ".")
	if name == "" || name[0] <= '.' {
		return nil
	}
	for i := range len(name) {
		buf[i] = lower(name[i])
	}
	// This string lives no longer than buf, which does not change any more.
	name = unsafe.String(&buf[0], len(name))
	if slot := s.names.find(name); slot.leads() {
		return slot
	}
	return s.lookupWildcard(name)
}

func (s *Store) lookupAddr(ip netip.Addr) *slot {
	if !ip.IsValid() {
		return nil
	}
	key := keyOfAddr(ip)
	slot := s.names.find(unsafe.String(&key[0], len(key))) // as in lookupFolded
	if !slot.leads() {
		return nil
	}
	return slot
}

// literalAddr reads a server name that is an IP address. RFC 6066, section 3, permits
// none, yet there are clients that send them.
func literalAddr(name string) (netip.Addr, bool) {
	for i := range len(name) {
		// ParseAddr allocates for what is no address, so look before.
		c := name[i]
		if !('0' <= c && c <= '9' || c == '.' || c == ':' || 'a' <= c && c <= 'f') {
			return netip.Addr{}, false
		}
	}
	ip, err := netip.ParseAddr(name)
	return ip, err == nil
}

// localAddr returns the IP address that the client connected to, or the zero Addr.
func localAddr(conn net.Conn) netip.Addr {
	if conn == nil {
		return netip.Addr{}
	}
	var ip net.IP
	switch a := conn.LocalAddr().(type) {
	case *net.TCPAddr:
		if a != nil {
			ip = a.IP
		}
	case *net.UDPAddr:
		if a != nil {
			ip = a.IP
		}
	case *net.IPAddr:
		if a != nil {
			ip = a.IP
		}
	case interface{ AddrPort() netip.AddrPort }:
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// refuseUnknown returns the error for a handshake that nothing fits.
func (s *Store) refuseUnknown(hello *tls.ClientHelloInfo) error {
	const most = 255
	err := &UnknownNameError{Name: hello.ServerName, Empty: s.Len() == 0}
	if err.Name == "" {
		err.Local = localAddr(hello.Conn)
	} else if len(err.Name) > most {
		err.Name = strings.Clone(err.Name[:most])
	}
	s.tellUnknown(err)
	return err
}
