/* The few system calls that ports make, declared here because the fast path includes no system headers. */
#ifndef CHAM_PORT_SYS_H
#define CHAM_PORT_SYS_H

extern long read(int fd, void *to, unsigned long len);
extern long write(int fd, const void *from, unsigned long len);
extern long sendto(int fd, const void *from, unsigned long len, int flags, const void *address, unsigned int address_len);
extern long recvfrom(int fd, void *to, unsigned long len, int flags, void *address, unsigned int *address_len);
extern int *__errno_location(void);

#define SYS_MSG_DONTWAIT 0x40
#define SYS_EINTR 4
#define SYS_EIO 5
#define SYS_EAGAIN 11
#define SYS_ENOMEM 12
#define SYS_EBUSY 16
#define SYS_ENOBUFS 105

#endif
