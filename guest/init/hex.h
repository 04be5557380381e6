/* Hexadecimal digits. */
#ifndef VMLET_HEX_H
#define VMLET_HEX_H

/* -1 for what is no digit; letters are large ones. */
static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

#endif
