/** Without control characters: names and notes may have some, and a terminal would obey them. */
export const printable = (text: string): string => text.replace(/\p{Cc}/gu, ' ')
