// SPDX-License-Identifier: Apache-2.0

// Package dynamolocal runs DynamoDB Local, Amazon's own emulator, for tests. It
// installs it without root rights, once for a user, and starts it on a free
// port:
//
//	func TestMain(m *testing.M) { os.Exit(dynamolocal.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		url := dynamolocal.Shared(t).URL("table")
//		…
//	}
//
// The emulator is a Java program from the npm package amplify-dynamodb-simulator,
// 57 MB, pinned by version and checksum. Java is the one on PATH if it is 17 or
// newer, else Debian's, unpacked beside the emulator. Both lie in the user's cache
// directory below "keyturn-test".
package dynamolocal
