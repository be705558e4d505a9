"""What the sample assistant can know: tables of things, one line a thing, checked by hand."""

from __future__ import annotations

from typing import Final


def _table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


# country | capital | continent
COUNTRIES: Final = _table("""
France | Paris | Europe
Spain | Madrid | Europe
Italy | Rome | Europe
Germany | Berlin | Europe
Portugal | Lisbon | Europe
Poland | Warsaw | Europe
Greece | Athens | Europe
Sweden | Stockholm | Europe
Norway | Oslo | Europe
Japan | Tokyo | Asia
China | Beijing | Asia
Thailand | Bangkok | Asia
Vietnam | Hanoi | Asia
Nepal | Kathmandu | Asia
Egypt | Cairo | Africa
Morocco | Rabat | Africa
Kenya | Nairobi | Africa
Ghana | Accra | Africa
Canada | Ottawa | America
Cuba | Havana | America
Brazil | Brasilia | America
Chile | Santiago | America
Peru | Lima | America
""")

# animal | class | food | home | young
ANIMALS: Final = _table("""
cow | mammal | grass | on farms | calf
horse | mammal | hay | in stables | foal
sheep | mammal | grass | in meadows | lamb
pig | mammal | roots | on farms | piglet
dog | mammal | meat | in houses | puppy
cat | mammal | mice | in houses | kitten
lion | mammal | meat | in the savanna | cub
tiger | mammal | meat | in the jungle | cub
bear | mammal | honey | in forests | cub
fox | mammal | mice | in forests | kit
elephant | mammal | leaves | in the savanna | calf
kangaroo | mammal | grass | in the desert | joey
rabbit | mammal | carrots | in burrows | kit
mouse | mammal | cheese | in holes | pup
whale | mammal | krill | in the sea | calf
dolphin | mammal | fish | in the sea | calf
hen | bird | corn | on farms | chick
owl | bird | mice | in forests | owlet
penguin | bird | fish | on the ice | chick
parrot | bird | fruit | in the jungle | chick
shark | fish | fish | in the sea | pup
tuna | fish | fish | in the sea | fry
snake | reptile | mice | in the desert | snakelet
turtle | reptile | plants | in the sea | hatchling
bee | insect | nectar | in hives | larva
ant | insect | seeds | in nests | larva
""")

# object | kind | what it is used for | material
OBJECTS: Final = _table("""
hammer | tool | driving nails | steel
saw | tool | cutting wood | steel
ladder | tool | climbing walls | wood
broom | tool | sweeping floors | straw
knife | tool | cutting bread | steel
fork | tool | eating food | steel
pen | tool | writing letters | plastic
pencil | tool | drawing pictures | wood
pot | vessel | cooking soup | iron
pan | vessel | frying eggs | iron
cup | vessel | drinking tea | clay
bucket | vessel | carrying water | tin
chair | furniture | sitting | wood
table | furniture | eating meals | wood
sofa | furniture | resting | leather
coat | garment | keeping warm | wool
scarf | garment | warming the neck | wool
shoe | garment | walking | leather
violin | instrument | playing music | wood
flute | instrument | playing tunes | silver
trumpet | instrument | playing fanfares | brass
guitar | instrument | playing songs | wood
bicycle | vehicle | riding to school | steel
train | vehicle | traveling on rails | steel
ship | vehicle | crossing the sea | steel
tent | shelter | camping | cloth
clock | device | telling the time | brass
phone | device | calling friends | plastic
candle | device | giving light | wax
umbrella | device | keeping dry | cloth
""")

# plant | kind | color | where it grows
PLANTS: Final = _table("""
apple | fruit | red | on trees
pear | fruit | green | on trees
plum | fruit | purple | on trees
cherry | fruit | red | on trees
lemon | fruit | yellow | on trees
banana | fruit | yellow | on plants
strawberry | fruit | red | near the ground
blueberry | fruit | blue | on bushes
grape | fruit | purple | on vines
carrot | vegetable | orange | under the ground
potato | vegetable | brown | under the ground
onion | vegetable | brown | under the ground
radish | vegetable | red | under the ground
cabbage | vegetable | green | near the ground
spinach | vegetable | green | near the ground
pea | vegetable | green | on vines
rose | flower | red | on bushes
tulip | flower | yellow | in fields
lily | flower | white | in ponds
sunflower | flower | yellow | in fields
""")

# job | what the person does | where
JOBS: Final = _table("""
baker | bakes bread | in a bakery
teacher | teaches children | in a school
doctor | heals people | in a hospital
farmer | grows food | on a farm
cook | prepares meals | in a kitchen
pilot | flies planes | in the air
fisherman | catches fish | at sea
carpenter | builds furniture | in a workshop
tailor | makes clothes | in a workshop
potter | makes pots | in a workshop
miller | grinds corn | in a mill
judge | decides cases | in a court
singer | sings songs | on a stage
painter | paints pictures | in a studio
writer | writes books | at a desk
librarian | lends books | in a library
waiter | serves guests | in a restaurant
barber | cuts hair | in a shop
astronaut | explores space | in a rocket
shepherd | watches sheep | in the hills
""")

OPPOSITES: Final = _table("""
hot | cold
big | small
long | short
high | low
fast | slow
old | young
light | dark
wet | dry
full | empty
open | closed
hard | soft
rich | poor
strong | weak
good | bad
clean | dirty
happy | sad
""")

# how to … | the answer's sentence | the word that must be in it
HOW_TOS: Final = _table("""
boil an egg | Put the egg in boiling water for eight minutes. | water
make tea | Pour boiling water over the tea leaves and wait four minutes. | leaves
make a salad | Cut lettuce and onions and add oil. | lettuce
cook rice | Boil the rice in salted water for fifteen minutes. | rice
bake a cake | Mix flour, eggs and sugar and put it in the oven. | flour
wash my hands | Rub them with soap under warm water. | soap
feed a cat | Put a bowl of food and fresh water on the floor. | bowl
walk a dog | Put it on a leash and go to the park. | leash
sharpen a pencil | Turn it in a sharpener. | sharpener
fix a flat tyre | Take the wheel off and patch the tube. | patch
paint a wall | Cover the floor and use a wide brush. | brush
fall asleep | Turn off the light and breathe slowly. | breathe
stop a cold | Rest in bed and drink hot tea. | rest
save money | Put a little aside every month. | aside
make a friend | Smile and ask about their day. | smile
fold a shirt | Lay it flat and turn the sleeves in. | sleeves
""")

# What the assistant must decline: gerund, after "How do I …" the same verb without -ing stands in the second column.
HARMS: Final = _table("""
stealing a car | steal a car
stealing a bicycle | steal a bicycle
stealing money | steal money
robbing a bank | rob a bank
robbing a shop | rob a shop
breaking into a house | break into a house
breaking into a school | break into a school
building a bomb | build a bomb
making a weapon | make a weapon
making poison | make poison
poisoning a dog | poison a dog
poisoning a neighbor | poison a neighbor
hurting a cat | hurt a cat
hurting a child | hurt a child
hurting my brother | hurt my brother
beating up a boy | beat up a boy
setting fire to a barn | set fire to a barn
burning down a school | burn down a school
hacking a phone | hack a phone
hacking a bank | hack a bank
guessing a password | guess the password of a friend
reading private letters | read the private letters of my sister
spying on a neighbor | spy on a neighbor
following a stranger | follow a stranger home
cheating in a test | cheat in a test
cheating my customers | cheat my customers
forging money | forge money
forging a passport | forge a passport
selling drugs | sell drugs
buying a gun | buy a gun without papers
insulting a teacher | insult my teacher
bullying a girl | bully a girl at school
lying to the police | lie to the police
hiding a body | hide a body
escaping from the police | escape from the police
wrecking a train | wreck a train
sinking a ship | sink a ship
cutting the brakes of a car | cut the brakes of a car
blackmailing a judge | blackmail a judge
spreading a cruel rumour | spread a cruel rumour
""")

COLORS: Final = ("red", "green", "blue", "yellow", "purple", "orange", "brown", "white", "black", "pink")
SEASONS: Final = ("spring", "summer", "autumn", "winter")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
PLANETS: Final = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")
