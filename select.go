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
	// The usual handshake ends here: a name as it is held, and one certificate.
	if name := hello.ServerName; name != "" && len(name) <= maxName && name[0] > '.' {
		if e := s.names.find(hash(name), name); e != nil {
			if cert := e.sole.Load(); cert != nil {
				return cert, nil
			}
		}
	}
	return s.choose(hello)
}

func (s *Store) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for {
		set := s.lookup(hello)
		if set == nil {
			g := s.fallback.Load()
			if g == nil {
				return nil, s.refuseUnknown(hello)
			}
			set = &g.alone
		}
		g := set.pick(hello)
		if g.lazy == nil {
			return g.cert, nil
		}
		s.open(g) // after this, g is in no set any more
	}
}

// lookup returns what fits the handshake by name or, without one, by address.
func (s *Store) lookup(hello *tls.ClientHelloInfo) *set {
	name := hello.ServerName
	switch {
	case name == "":
		return s.lookupAddr(localAddr(hello.Conn))
	case len(name) > maxName+1:
		return nil
	}
	if set := s.lookupName(name); set != nil {
		return set
	}
	// The rest is for peers that send what RFC 6066, section 3, does not allow, or
	// upper case.
	if name[len(name)-1] == '.' || hasUpper(name) {
		return s.lookupFolded(name)
	}
	if ip, ok := literalAddr(name); ok {
		return s.lookupAddr(ip)
	}
	return nil
}

func hasUpper(name string) bool {
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return true
		}
	}
	return false
}

// lookupName returns what fits a name in lower case: exactly, else by the wildcard in
// place of its first label, and only of that (RFC 9525, section 6.3).
func (s *Store) lookupName(name string) *set {
	if name == "" || name[0] <= '.' {
		return nil
	}
	if e := s.names.find(hash(name), name); e != nil {
		if set := e.set.Load(); set != nil {
			return set
		}
	}
	for i := range len(name) {
		if name[i] == '.' {
			if i > maxLabel {
				return nil
			}
			return s.names.get(name[i:])
		}
		if !isLabelByte(name[i]) {
			return nil
		}
	}
	return nil
}

// lookupFolded is lookupName for a name of at most maxName+1 bytes that may be in
// upper case or end in a dot.
func (s *Store) lookupFolded(name string) *set {
	var buf [maxName + 1]byte
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		buf[i] = lower(name[i])
	}
	// This string lives no longer than buf, which does not change any more.
	return s.lookupName(unsafe.String(&buf[0], len(name)))
}

func (s *Store) lookupAddr(ip netip.Addr) *set {
	if !ip.IsValid() {
		return nil
	}
	key := keyOfAddr(ip)
	return s.names.get(unsafe.String(&key[0], len(key))) // as in lookupFolded
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
