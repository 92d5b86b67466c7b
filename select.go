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
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for {
		cert, set := s.lookup(hello)
		if cert != nil {
			return cert, nil
		}
		var g *generation
		if set != nil {
			g = set.pick(hello)
		} else if g = s.fallback.Load(); g == nil {
			return nil, s.refuseUnknown(hello)
		}
		if g.lazy == nil {
			return g.cert, nil
		}
		s.open(g) // after this, g is in no set any more
	}
}

// lookup returns what fits the handshake by name or, without one, by address: the
// certificate if it needs no choice, else the set to choose from.
func (s *Store) lookup(hello *tls.ClientHelloInfo) (*tls.Certificate, *set) {
	name := hello.ServerName
	if name == "" {
		return s.lookupAddr(localAddr(hello.Conn))
	}
	if len(name) > maxName+1 {
		return nil, nil
	}
	if cert, set := s.lookupName(name); cert != nil || set != nil {
		return cert, set
	}
	// The rest is for peers that send what RFC 6066, section 3, does not allow, or
	// upper case.
	if name[len(name)-1] == '.' || hasUpper(name) {
		return s.lookupFolded(name)
	}
	if ip, ok := literalAddr(name); ok {
		return s.lookupAddr(ip)
	}
	return nil, nil
}

// lookupName returns what fits a name in lower case: exactly, else by the wildcard in
// place of its first label, and only of that (RFC 9525, section 6.3).
func (s *Store) lookupName(name string) (*tls.Certificate, *set) {
	if name == "" || name[0] <= '.' {
		return nil, nil // see the keys of Store.names
	}
	if cert, set := s.names.find(name).answer(); cert != nil || set != nil {
		return cert, set
	}
	dot := strings.IndexByte(name, '.')
	if dot < 0 {
		return nil, nil
	}
	cert, set := s.names.find(name[dot:]).answer()
	if (cert != nil || set != nil) && !isLabel(name[:dot]) {
		return nil, nil
	}
	return cert, set
}

// lookupFolded is lookupName for a name of at most maxName+1 bytes that may be in
// upper case or end in a dot.
func (s *Store) lookupFolded(name string) (*tls.Certificate, *set) {
	var buf [maxName + 1]byte
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		buf[i] = lower(name[i])
	}
	// This string lives no longer than buf, which does not change any more.
	return s.lookupName(unsafe.String(&buf[0], len(name)))
}

func (s *Store) lookupAddr(ip netip.Addr) (*tls.Certificate, *set) {
	if !ip.IsValid() {
		return nil, nil
	}
	key := keyOfAddr(ip)
	return s.names.find(unsafe.String(&key[0], len(key))).answer() // as in lookupFolded
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
	err := &UnknownNameError{Name: hello.ServerName}
	if err.Name == "" {
		err.Local = localAddr(hello.Conn)
	} else if len(err.Name) > most {
		err.Name = strings.Clone(err.Name[:most])
	}
	s.tellUnknown(err)
	return err
}
