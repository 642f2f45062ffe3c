"""The words of the evaluation tasks: closed lists of sparse English, and the characters of prose.

A text of a task is words joined by single spaces. Prose is spelled: one token a character, `▁` for
a space. The vocabulary is everything that can occur, in a fixed order: a word's index is its token
id. It is part of the shipped models, hence only appended to, with VERSION raised.
"""

VERSION = 1

BOS = "<bos>"
UNKNOWN = "<unk>"
SPACE = "▁"

NAMES = (
    "ada adam agnes alan alice amos anna arne asta axel beda ben bert bianca bjorn boris bruno "
    "carl cara celia clara colin cora cyril dana dario david delia dirk dora dylan edgar edith "
    "egon elena elias ella emil emma enzo erik esther eva fabian felix fiona flora frank frida "
    "gerda gina goran greta gustav hanna harald hector heidi helga henry hilda hugo ida igor ilse "
    "ines ingrid iris ivan ivo jana jasper jens joan jonas judith julia julian karin karl kira "
    "klaus lara laura leo lena lily linus lotte louis lucas lydia magda marco maria mario marta "
    "max mila milo mona nadia nils nina noah nora olaf olga oscar otto paula peter petra philip "
    "ralf rita robin rosa ruth sara sven tanja").split()
COLOURS = (
    "red blue green yellow black white brown grey pink purple orange silver gold amber violet "
    "scarlet crimson indigo olive ivory copper teal maroon beige").split()
VOUCHERS = (
    "mason baker miller pilot nurse farmer painter tailor writer doctor lawyer sailor hunter "
    "potter weaver banker singer dancer butcher fisher gardener teacher drummer porter").split()
PLACES = (
    "paris rome oslo cairo lima tokyo delhi berlin vienna madrid lisbon dublin athens warsaw "
    "prague milan boston dallas havana quito seoul hanoi lagos nairobi").split()
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty").split()
# Words of free-form templates, which say nothing.
FILLER = (
    "please read these notes below with care today team gave us the following report from our "
    "last meeting and check each line here now then next some more").split()
# Words of the grammar. Questions begin with one of: colour number voucher place sum list pick.
GRAMMAR = (
    "vouches at ditto alias score rule highest lowest wins agent file colour number voucher place "
    "sum list pick winner plus").split()
CHARACTERS = [chr(code) for code in range(33, 127)]


def vocabulary():
    """Every token in the order of its id."""
    words = [BOS, UNKNOWN, SPACE]
    for group in (CHARACTERS, GRAMMAR, FILLER, NUMBERS, COLOURS, VOUCHERS, PLACES, NAMES):
        words += [word for word in group if word not in words]
    return words


def spell_exactly(prose):
    """Every character of prose as a word of the vocabulary."""
    return [SPACE if char == " " else char for char in prose]
